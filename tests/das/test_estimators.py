"""Every estimator of METHOD section 3, answered by an index, against dense float64 algebra written here anew."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from das.attribution import Attributor
from das.config import BuildConfig, ClipSpec
from das.errors import ModelError, SettingsError
from das.gradients import FeatureConfig, FeatureExtractor
from das.index import AttributionIndex
from das.methods import ACTIVATION, METHODS
from das.models import load_model
from das.prng import standard_normal
from das.screening import Embedder
from index_build.build import build
from tests.conftest import make_model, make_picture, make_works

WORKS, DIMENSION, TIMESTEPS, DAMPING = 14, 48, (50, 400), 0.1
QUERIES = [make_picture(3), make_picture(900), make_picture(901)]
REPEATS = np.array([3.0 if row == 7 else 1.0 for row in range(WORKS)])
SEED = 5
NAMES = tuple(method.name for method in METHODS)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("estimators")
    make_works(folder / "works", WORKS)
    make_model(folder / "model", seed=0)
    make_model(folder / "earlier", seed=1)
    return {name: folder / name for name in ("works", "model", "earlier", "index")}


@pytest.fixture(scope="module")
def attributor(places: dict[str, Path], tiny_clip: Path) -> Attributor:
    config = BuildConfig(
        name="all",
        model=str(places["model"]),
        works=places["works"],
        timesteps=TIMESTEPS,
        dimension=DIMENSION,
        methods=NAMES,
        probes=("loss", ACTIVATION),
        checkpoints=(str(places["earlier"]),),
        damping=DAMPING,
        feature_dtype="float32",
        shard_size=9,
        clip=ClipSpec(directory=tiny_clip),
    )
    build(config, places["index"])
    return Attributor(AttributionIndex.open(places["index"]), threads=1)


@pytest.fixture(scope="module")
def raw(places: dict[str, Path]) -> dict[str, np.ndarray]:
    """Features (N + B, T, k) float64 of works and queries by probe; of the earlier checkpoint as `earlier`."""
    files = sorted(places["works"].glob("*.png"))
    pictures = [np.array(Image.open(file)) for file in files] + QUERIES
    found = {}
    for place, probes in (("model", ("loss", "mean", "square", ACTIVATION)), ("earlier", ("loss",))):
        model = load_model(str(places[place]))
        extractor = FeatureExtractor(model, FeatureConfig(DIMENSION, probes, TIMESTEPS))
        features = extractor.features(model.encode(pictures))
        for probe in probes:
            name = probe if place == "model" else "earlier"
            found[name] = features.by_probe[probe].double().numpy()
        if place == "model":
            found["rms"] = features.residual_rms.double().numpy()
            found["pixels"] = model.encode(pictures).flatten(1).double().numpy()
    return found


def split(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return features[:WORKS], features[WORKS:]


def inverse_of(works: np.ndarray) -> np.ndarray:
    """`(K + λI)⁻¹` with `K = Σ w φφᵀ` and λ in units of tr(K)/N."""
    kernel = sum(w * np.outer(row, row) for w, row in zip(REPEATS, works, strict=True))
    return np.linalg.inv(kernel + DAMPING * np.trace(kernel) / REPEATS.sum() * np.eye(DIMENSION))


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)


def dense_das_block(features: np.ndarray) -> np.ndarray:
    """One probe's squared scores, in units of their mean over pairs of works."""
    unit = features / np.linalg.norm(features, axis=2, keepdims=True)
    works, query = split(unit.mean(1))
    rows = unit[:WORKS] * np.sqrt(REPEATS)[:, None, None]
    kernel = np.einsum("itk,itl->kl", rows, rows)
    inverse = np.linalg.inv(kernel + DAMPING * np.trace(kernel) / REPEATS.sum() * np.eye(DIMENSION))
    among = works @ inverse @ works.T
    leverage = unit.shape[1] * np.diag(among)
    return REPEATS**0.6 * (query @ inverse @ works.T) ** 2 / (1 - REPEATS * leverage) / np.mean(among**2)


def dense(method: str, raw: dict[str, np.ndarray], clip: np.ndarray) -> np.ndarray:
    loss, query = split(raw["loss"].mean(1))
    match method:
        case "gradient-dot":
            return query @ loss.T * REPEATS
        case "gradient-cosine":
            return cosine(query, loss)
        case "tracincp":
            early, early_query = split(raw["earlier"].mean(1))
            return (query @ loss.T + early_query @ early.T) / 2 * REPEATS
        case "gas":
            early, early_query = split(raw["earlier"].mean(1))
            return (cosine(query, loss) + cosine(early_query, early)) / 2
        case "trak":
            return query @ inverse_of(loss) @ loss.T * REPEATS
        case "d-trak":
            works, query = split(raw["square"].mean(1))
            return query @ inverse_of(works) @ works.T * REPEATS
        case "relative-influence":
            solved = loss @ inverse_of(loss)
            return query @ solved.T / np.linalg.norm(solved, axis=1)
        case "renormalised-influence":
            return query @ inverse_of(loss) @ loss.T / np.linalg.norm(loss, axis=1)
        case "das":
            unit = raw["mean"] / np.linalg.norm(raw["mean"], axis=2, keepdims=True)
            works, query = split(unit.mean(1))
            inverse = inverse_of(works)
            leverage = np.diag(works @ inverse @ works.T)
            rms = raw["rms"][:WORKS]
            residual = (rms / np.average(rms, axis=0, weights=REPEATS)).mean(1)
            return (query @ inverse @ works.T * residual / (1 - REPEATS * leverage)) ** 2
        case "das-block":
            return dense_das_block(raw["loss"]) + dense_das_block(raw[ACTIVATION])
        case "pixel-dot":
            return raw["pixels"][WORKS:] @ raw["pixels"][:WORKS].T
        case "pixel-cosine":
            return cosine(raw["pixels"][WORKS:], raw["pixels"][:WORKS])
        case "clip-dot":
            return clip[WORKS:] @ clip[:WORKS].T
        case "clip-cosine":
            return cosine(clip[WORKS:], clip[:WORKS])
    raise AssertionError(method)


@pytest.fixture(scope="module")
def clip(places: dict[str, Path], tiny_clip: Path) -> np.ndarray:
    """CLIP embeddings (N + B, e), not normalised, from open_clip itself."""
    import open_clip

    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{tiny_clip}")
    files = sorted(places["works"].glob("*.png"))
    pictures = [Image.open(file) for file in files] + [Image.fromarray(query) for query in QUERIES]
    with torch.inference_mode():
        return model.eval().encode_image(torch.stack([preprocess(p) for p in pictures])).double().numpy()


@pytest.mark.parametrize("method", [name for name in NAMES if name != "journey-trak"])
def test_the_index_answers_as_the_dense_definition(
    method: str, attributor: Attributor, raw: dict[str, np.ndarray], clip: np.ndarray
) -> None:
    expected = dense(method, raw, clip)
    scores = attributor.scores(QUERIES, method)
    np.testing.assert_allclose(scores, expected, rtol=3e-3, atol=2e-4 * np.abs(expected).max())


def noised(image: torch.Tensor, alphas: torch.Tensor, t: int, noise: torch.Tensor) -> torch.Tensor:
    return alphas[t].sqrt() * image + (1 - alphas[t]).sqrt() * noise


def dense_journey(
    model, x: torch.Tensor, grid: list[int], raw: dict[str, np.ndarray]
) -> tuple[np.ndarray, torch.Tensor]:
    """Journey TRAK of one trajectory that starts at `x`, by hand: DDIM steps and the loss gradient at each."""
    from diffusers import DDPMScheduler

    alphas = DDPMScheduler(num_train_timesteps=1000).alphas_cumprod.double()
    extractor = FeatureExtractor(model, FeatureConfig(DIMENSION, ("loss",), TIMESTEPS))
    x, clean_at = x.double(), {}
    for here, there in zip(grid, [*grid[1:], grid[-1]], strict=True):
        with torch.no_grad():
            eps = model.network(x.float(), torch.tensor([here])).sample.double()
        clean_at[here] = (x - (1 - alphas[here]).sqrt() * eps) / alphas[here].sqrt()
        x = noised(clean_at[here], alphas, there, eps)
    parameters = dict(model.network.named_parameters())
    total = torch.zeros(1, DIMENSION)
    for t in TIMESTEPS:
        noise = torch.from_numpy(standard_normal(0, f"noise\n{t}\n0", model.sample_shape)).float()[None]
        x_t = noised(clean_at[t].float(), alphas.float(), t, noise)
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        loss = (model.network(x_t, torch.tensor([t])).sample - noise).square().mean()
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        total += extractor.sketch.sketch({n: g[None] for n, g in zip(parameters, gradients, strict=True)})
    query = (total / len(TIMESTEPS)).double().numpy()
    works = split(raw["loss"].mean(1))[0]
    return query @ inverse_of(works) @ works.T * REPEATS, clean_at[grid[-1]]


GRID = sorted({*TIMESTEPS, *range(0, 1000, 20), 999})


def test_journey_trak_inverts_an_upload(attributor: Attributor, raw: dict[str, np.ndarray]) -> None:
    model = attributor.model
    expected, _ = dense_journey(model, model.encode([QUERIES[1]]), GRID, raw)
    scores = attributor.scores([QUERIES[1]], "journey-trak")
    np.testing.assert_allclose(scores, expected, rtol=1e-2, atol=2e-3 * np.abs(expected).max())


def test_journey_trak_follows_the_seed(attributor: Attributor, raw: dict[str, np.ndarray]) -> None:
    noise = torch.randn(1, *attributor.model.sample_shape, generator=torch.Generator().manual_seed(SEED))
    expected, _ = dense_journey(attributor.model, noise, GRID[::-1], raw)
    answers = attributor.attribute_batch(
        [QUERIES[1], QUERIES[1]], method="journey-trak", top_k=WORKS, seeds=[None, SEED]
    )
    scores = np.zeros((2, WORKS))
    for row, answer in enumerate(answers):
        for work in answer.works:
            scores[row, work.row] = work.score
    np.testing.assert_allclose(scores[1:], expected, rtol=1e-2, atol=2e-3 * np.abs(expected).max())
    np.testing.assert_allclose(
        scores[:1], attributor.scores([QUERIES[1]], "journey-trak"), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("method", NAMES)
def test_shares_are_parts_of_a_whole_even_of_signed_scores(method: str, attributor: Attributor) -> None:
    answer = attributor.attribute(QUERIES[0], method=method, top_k=WORKS)
    assert sum(work.share for work in answer.works) == pytest.approx(1)
    assert min(work.share for work in answer.works) >= 0
    scores = [work.score for work in answer.works]
    assert scores == sorted(scores, reverse=True)
    chosen = attributor.attribute(QUERIES[0], method=method, candidates=np.array([2, 11, 3]))
    every = {work.row: work.score for work in answer.works}
    for work in chosen.works:
        assert work.score == pytest.approx(every[work.row], rel=1e-5, abs=1e-9)


def test_a_method_that_wasnt_built_names_the_option(tiny_index: Path) -> None:
    with pytest.raises(SettingsError, match="--method trak"):
        Attributor(AttributionIndex.open(tiny_index)).attribute(QUERIES[0], method="trak")


def test_a_checkpoint_of_another_network_is_refused(
    places: dict[str, Path], tiny_clip: Path, tmp_path: Path
) -> None:
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    network = UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )
    DDPMPipeline(network, DDPMScheduler()).save_pretrained(tmp_path / "other")
    config = BuildConfig(
        name="other",
        model=str(places["model"]),
        works=places["works"],
        methods=("gas",),
        checkpoints=(str(tmp_path / "other"),),
        clip=ClipSpec(directory=tiny_clip),
    )
    with pytest.raises(ModelError, match="isn't a checkpoint of"):
        build(config, tmp_path / "index")


def test_checkpoints_without_a_method_that_reads_them_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tracincp and gas only"):
        BuildConfig(name="a", model="m", works=tmp_path, checkpoints=("c",))


def test_embeddings_and_their_norms_are_open_clips(clip: np.ndarray, tiny_clip: Path) -> None:
    embeddings, norms = Embedder.load(ClipSpec(directory=tiny_clip)).embed_with_norms(QUERIES)
    np.testing.assert_allclose(norms, np.linalg.norm(clip[WORKS:], axis=1), rtol=1e-4)
    np.testing.assert_allclose(embeddings * norms[:, None], clip[WORKS:], rtol=1e-3, atol=1e-4)


def test_parameters_can_be_chosen_only_where_a_probe_has_some(tmp_path: Path) -> None:
    options = {"name": "a", "model": "m", "works": tmp_path, "attributed": "up-blocks"}
    with pytest.raises(ValueError, match="activations have none"):
        BuildConfig(**options, probes=(ACTIVATION,))
    BuildConfig(**options, probes=("loss", ACTIVATION))
    BuildConfig(**options, probes=(ACTIVATION,), methods=("das-block", "trak"))
