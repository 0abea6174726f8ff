"""From the bytes of an untrusted file to sRGB pixels, in this process or in one that may die."""

from das.images.declared import Declared, DeclaredLora
from das.images.encode import THUMBNAIL_MEDIA_TYPE, decode_png, encode_png, encode_thumbnail
from das.images.isolated import IsolatedNormaliser
from das.images.normalise import ImageLimits, NormalisedImage, Pixels, normalise

__all__ = [
    "THUMBNAIL_MEDIA_TYPE",
    "Declared",
    "DeclaredLora",
    "ImageLimits",
    "IsolatedNormaliser",
    "NormalisedImage",
    "Pixels",
    "decode_png",
    "encode_png",
    "encode_thumbnail",
    "normalise",
]
