"""The photographs of the demo: real ones, carried by installed packages, each with its photographer and licence.

Only files inside the wheels of scikit-image, scikit-learn and matplotlib are read; nothing is downloaded. The
credits are those the packages give (docstrings of `skimage.data`, `sklearn/datasets/images/README.txt`) and, for
the one portrait in matplotlib, those of its maker, the U.S. Navy. Drawings, textures, unlicensed scientific and
medical images and photographs whose photographer or licence is not stated are left out.
"""

import hashlib
import io
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from PIL import Image

from das.errors import DasError


class PhotographError(DasError):
    """A photograph of the demo is missing from its package, or is not the file whose credits are recorded."""


@dataclass(frozen=True)
class Licence:
    """A licence by its SPDX identifier, or `Public-Domain` where the maker waived or never had a copyright."""

    name: str
    url: str


CC0 = Licence("CC0-1.0", "https://creativecommons.org/publicdomain/zero/1.0/")
CC_BY_2 = Licence("CC-BY-2.0", "https://creativecommons.org/licenses/by/2.0/")
PUBLIC_DOMAIN = Licence("Public-Domain", "https://creativecommons.org/publicdomain/mark/1.0/")


@dataclass(frozen=True)
class Photograph:
    """One photograph: where its file is, what it shows, who made it, and under which licence it is given."""

    name: str  # stem of the crops' file names and the works' `group`
    package: str  # import name of the package that carries the file
    path: str  # inside the package
    sha256: str
    title: str
    creator: str
    rights_holder: str
    licence: Licence
    source_url: str
    caption: str  # what CLIP's text tower reads

    @property
    def distribution(self) -> str:
        """The name under which the package is installed."""
        return {"skimage": "scikit-image", "sklearn": "scikit-learn"}.get(self.package, self.package)

    def file(self) -> Traversable:
        """The file inside the installed package. Raises `PhotographError` if the package is not installed."""
        try:
            return resources.files(self.package).joinpath(self.path)
        except ModuleNotFoundError as error:
            raise PhotographError(
                f"the demo's photographs come with {self.distribution}, which is not installed: "
                f"`pip install 'das-attribution[demo]'`"
            ) from error

    def read(self) -> Image.Image:
        """The decoded photograph, RGB. Raises `PhotographError` if the file is missing or has changed."""
        file = self.file()
        if not file.is_file():
            raise PhotographError(
                f"{self.distribution} no longer carries {self.path} ({self.title!r}): "
                f"install the version named in requirements.lock"
            )
        data = file.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if digest != self.sha256:
            raise PhotographError(
                f"{self.path} of {self.distribution} has changed (sha256 {digest[:16]}…, expected "
                f"{self.sha256[:16]}…): the recorded credits and the demo's model belong to the other file; "
                f"install the version named in requirements.lock"
            )
        return Image.open(io.BytesIO(data)).convert("RGB")


PHOTOGRAPHS: tuple[Photograph, ...] = (
    Photograph(
        name="astronaut",
        package="skimage",
        path="data/astronaut.png",
        sha256="88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        title="Astronaut Eileen Collins",
        creator="NASA",
        rights_holder="",
        licence=PUBLIC_DOMAIN,
        source_url="https://flic.kr/p/r9qvLn",
        caption="portrait of an astronaut in an orange space suit with a flag and a model of a shuttle",
    ),
    Photograph(
        name="camera",
        package="skimage",
        path="data/camera.png",
        sha256="b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
        title="Cameraman",
        creator="Lav Varshney",
        rights_holder="Lav Varshney",
        licence=CC0,
        source_url="https://github.com/scikit-image/scikit-image/issues/3927",
        caption="black and white photograph of a man with a camera on a tripod in a field",
    ),
    Photograph(
        name="chelsea",
        package="skimage",
        path="data/chelsea.png",
        sha256="596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
        title="Chelsea the cat",
        creator="Stefan van der Walt",
        rights_holder="Stefan van der Walt",
        licence=CC0,
        source_url="https://scikit-image.org/docs/stable/api/skimage.data.html#skimage.data.chelsea",
        caption="a ginger tabby cat with green eyes",
    ),
    Photograph(
        name="clock",
        package="skimage",
        path="data/clock_motion.png",
        sha256="f029226b28b642e80113d86622e9b215ee067a0966feaf5e60604a1e05733955",
        title="Wall clock, motion blurred",
        creator="Stefan van der Walt",
        rights_holder="Stefan van der Walt",
        licence=PUBLIC_DOMAIN,
        source_url="https://scikit-image.org/docs/stable/api/skimage.data.html#skimage.data.clock",
        caption="a grey blurred wall clock in motion",
    ),
    Photograph(
        name="coffee",
        package="skimage",
        path="data/coffee.png",
        sha256="cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
        title="Coffee cup, Pikolo Espresso Bar",
        creator="Rachel Michetti",
        rights_holder="Rachel Michetti",
        licence=CC0,
        source_url="https://scikit-image.org/docs/stable/api/skimage.data.html#skimage.data.coffee",
        caption="a cup of espresso on a red saucer with a spoon on a wooden table",
    ),
    Photograph(
        name="hubble",
        package="skimage",
        path="data/hubble_deep_field.jpg",
        sha256="3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
        title="Hubble eXtreme Deep Field",
        creator="NASA",
        rights_holder="",
        licence=PUBLIC_DOMAIN,
        source_url="http://hubblesite.org/newscenter/archive/releases/2012/37/image/a/",
        caption="galaxies and stars in the black sky of deep space",
    ),
    Photograph(
        name="retina",
        package="skimage",
        path="data/retina.jpg",
        sha256="38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
        title="Fundus photograph of a normal left eye",
        creator="Mikael Häggström",
        rights_holder="Mikael Häggström",
        licence=CC0,
        source_url="https://commons.wikimedia.org/wiki/File:Fundus_photograph_of_normal_left_eye.jpg",
        caption="the red retina of a human eye with its blood vessels",
    ),
    Photograph(
        name="rocket",
        package="skimage",
        path="data/rocket.jpg",
        sha256="c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
        title="Launch of DSCOVR on Falcon 9",
        creator="SpaceX",
        rights_holder="",
        licence=PUBLIC_DOMAIN,
        source_url="https://www.flickr.com/photos/spacexphotos/16511594820/in/photostream/",
        caption="a rocket on its launch pad at dusk between towers and lights",
    ),
    Photograph(
        name="china",
        package="sklearn",
        path="datasets/images/china.jpg",
        sha256="8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
        title="Pagoda by a lake",
        creator="danielbuechele",
        rights_holder="danielbuechele",
        licence=CC_BY_2,
        source_url="https://www.flickr.com/photos/danielbuechele/6061409035/sizes/z/in/photostream/",
        caption="a chinese pagoda above trees and a lake",
    ),
    Photograph(
        name="flower",
        package="sklearn",
        path="datasets/images/flower.jpg",
        sha256="a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
        title="Dahlia",
        creator="vultilion",
        rights_holder="vultilion",
        licence=CC_BY_2,
        source_url="https://www.flickr.com/photos/vultilion/6056698931/sizes/z/in/photostream/",
        caption="an orange dahlia flower before dark green leaves",
    ),
    Photograph(
        name="hopper",
        package="matplotlib",
        path="mpl-data/sample_data/grace_hopper.jpg",
        sha256="a8ca6d734765703b09728ab47fe59f473d93ae3967fc24c7c0288c3c7adb7130",
        title="Commodore Grace M. Hopper, official portrait",
        creator="James S. Davis",
        rights_holder="U.S. Navy",
        licence=PUBLIC_DOMAIN,
        source_url="https://commons.wikimedia.org/wiki/File:Commodore_Grace_M._Hopper,_USN_(covered).jpg",
        caption="portrait of a navy officer in uniform with glasses and a hat before a flag",
    ),
)
