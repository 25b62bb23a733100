"""Image files as the model sees them: pixel for pixel as transformers' own processor has them."""

import base64
import io
import sys
import threading

import numpy as np
import PIL.features
import PIL.Image
import pytest
from florence2.errors import InvalidArgumentError
from florence2_server.config import EngineConfig
from florence2_server.engine.images import formats
from florence2_server.engine.images.decoding import ImageDecoder
from florence2_server.engine.images.formats import readable_formats
from florence2_server.engine.images.image_file import ImageReader
from florence2_server.engine.images.resizing import resizing_of
from transformers import Florence2Processor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from tests.conftest import EXAMPLE_SCENE, HEIC_FILES
from tests.reference import opened

READER = ImageReader.of(EngineConfig(checkpoint="any"))
ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def processor(real_processor_folder):
    return Florence2Processor.from_pretrained(real_processor_folder).image_processor


@pytest.fixture(scope="module")
def pixels(processor):
    """Makes the pixels for the vision tower from a file."""
    decoder = ImageDecoder(resizing_of(processor), READER)
    return lambda file: decoder.decode(file).pixels.numpy()


@pytest.fixture(scope="module")
def expected(processor):
    """Makes the pixels of transformers' processor from an image."""
    return lambda picture: np.asarray(
        processor(images=picture, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
    )


def saved(picture: PIL.Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def ink() -> PIL.Image.Image:
    """The example's scene as black ink on a transparent background: only its alpha tells what it shows."""
    scene = PIL.Image.open(EXAMPLE_SCENE).convert("L")
    picture = PIL.Image.new("RGBA", scene.size)
    picture.putalpha(scene.point(lambda gray: 255 - gray))
    return picture


def stain() -> PIL.Image.Image:
    """Random colors and alphas."""
    return PIL.Image.fromarray(np.random.default_rng(1).integers(0, 256, (60, 90, 4), dtype=np.uint8))


def palette(key: int | bytes) -> PIL.Image.Image:
    picture = stain().convert("RGB").quantize(64)
    picture.info["transparency"] = key
    return picture


def with_key(mode: str, key) -> PIL.Image.Image:
    picture = stain().convert(mode)
    picture.paste(key, (5, 5, 40, 40))
    return picture


def associated_alpha() -> bytes:
    """A TIFF file with colors premultiplied by alpha."""
    return saved(stain().convert("RGBa").convert("RGBA"), "TIFF", tiffinfo={338: 1})


FILES = {
    "ink, PNG": lambda: saved(ink(), "PNG"),
    "ink, WebP": lambda: saved(ink(), "WEBP", lossless=True, exact=True),
    "ink, lossy WebP": lambda: saved(ink(), "WEBP", quality=80),
    "ink, GIF": lambda: saved(ink(), "GIF"),
    "ink, TIFF": lambda: saved(ink(), "TIFF"),
    "ink, compressed TIFF": lambda: saved(ink(), "TIFF", compression="tiff_lzw"),
    "ink, AVIF": lambda: saved(ink(), "AVIF"),
    "RGBA, PNG": lambda: saved(stain(), "PNG"),
    "RGBA, TIFF": lambda: saved(stain(), "TIFF"),
    "associated alpha, TIFF": associated_alpha,
    "LA, PNG": lambda: saved(stain().convert("LA"), "PNG"),
    "LA, TIFF": lambda: saved(stain().convert("LA"), "TIFF"),
    "PA, TIFF": lambda: saved(stain().convert("P").convert("PA"), "TIFF"),
    "P with an index, PNG": lambda: saved(palette(7), "PNG"),
    "P with alphas, PNG": lambda: saved(palette(bytes(range(0, 256, 4))), "PNG"),
    "P, GIF": lambda: saved(palette(7), "GIF"),
    "1 with a key, PNG": lambda: saved(with_key("1", 0), "PNG", transparency=0),
    "L with a key, PNG": lambda: saved(with_key("L", 7), "PNG", transparency=7),
    "RGB with a key, PNG": lambda: saved(with_key("RGB", (1, 2, 3)), "PNG", transparency=(1, 2, 3)),
    "RGBA, BMP": lambda: saved(stain(), "BMP"),
    "animated PNG": lambda: saved(stain(), "PNG", save_all=True, append_images=[ink().resize((90, 60))]),
    "animated WebP": lambda: saved(stain(), "WEBP", save_all=True, append_images=[ink().resize((90, 60))]),
    "animated GIF": lambda: saved(palette(7), "GIF", save_all=True, append_images=[ink().resize((90, 60))]),
    "animated AVIF": lambda: saved(stain(), "AVIF", save_all=True, append_images=[ink().resize((90, 60))]),
    "pages, TIFF": lambda: saved(stain(), "TIFF", save_all=True, append_images=[ink()]),
    "JPEG": lambda: saved(stain().convert("RGB"), "JPEG"),
    "gray JPEG": lambda: saved(stain().convert("L"), "JPEG"),
    "CMYK, JPEG": lambda: saved(stain().convert("CMYK"), "JPEG"),
    "CMYK, TIFF": lambda: saved(stain().convert("CMYK"), "TIFF"),
    "YCbCr, TIFF": lambda: saved(stain().convert("YCbCr"), "TIFF"),
    "1, TIFF": lambda: saved(stain().convert("1"), "TIFF"),
    "turned JPEG": lambda: saved(stain().convert("RGB"), "JPEG", exif=turned(6)),
    "turned ink, PNG": lambda: saved(ink(), "PNG", exif=turned(8)),
    "turned ink, AVIF": lambda: saved(ink(), "AVIF", exif=turned(7)),
    "turned ink, TIFF": lambda: saved(ink(), "TIFF", tiffinfo={274: 5}),
}


def turned(orientation: int) -> PIL.Image.Exif:
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_the_pixels_of_a_file_equal_the_processors(pixels, expected, file):
    data = file()
    np.testing.assert_array_equal(pixels(data), expected(opened(data)))


@pytest.mark.parametrize("file", [name for name in FILES if "ink" in name])
def test_black_ink_on_a_transparent_background_is_black_on_white(pixels, file):
    """Without the alpha, all of it would be black."""
    gray = pixels(FILES[file]()).mean(axis=0)
    assert (gray > 250).mean() > 0.5
    assert (gray < 40).any()


SIZES = [(1, 1), (1, 7), (9, 1), (2, 3), (640, 480), (767, 769), (768, 768), (1536, 1536), (3000, 40), (50, 2500)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_resizing_equals_the_processors_for_images_of_any_size(processor, expected, size):
    picture = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    np.testing.assert_array_equal(resizing_of(processor)(picture), expected(picture))


def processors() -> dict[str, CLIPImageProcessorPil]:
    square = {"height": 64, "width": 64}
    return {
        "square": CLIPImageProcessorPil(size=square, do_center_crop=False),
        "oblong": CLIPImageProcessorPil(size={"height": 32, "width": 96}, do_center_crop=False),
        **{
            f"filter {number}": CLIPImageProcessorPil(size=square, resample=number, do_center_crop=False)
            for number in range(6)
        },
        "cropped": CLIPImageProcessorPil(size=square, crop_size={"height": 32, "width": 32}),
        "shortest edge": CLIPImageProcessorPil(size={"shortest_edge": 48}, do_center_crop=False),
        "not resized": CLIPImageProcessorPil(do_resize=False, do_center_crop=False),
        "padded": CLIPImageProcessorPil(
            size=square, do_center_crop=False, do_pad=True, pad_size={"height": 70, "width": 80}
        ),
    }


@pytest.mark.parametrize("processor", processors().values(), ids=processors())
def test_resizing_equals_the_processors_for_any_configuration(processor):
    picture = stain().convert("RGB")
    wanted = processor(images=picture, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
    np.testing.assert_array_equal(resizing_of(processor)(picture), wanted)


def test_a_processor_of_another_class_is_called_as_it_is():
    class Inverting(CLIPImageProcessorPil):
        def resize(self, image, *args, **options):
            return 255 - super().resize(image, *args, **options)

    picture = stain().convert("RGB")
    plain = processors()["square"]
    inverting = Inverting(size={"height": 64, "width": 64}, do_center_crop=False)
    np.testing.assert_array_equal(resizing_of(inverting)(picture), 255 - resizing_of(plain)(picture))


GRAY = np.random.default_rng(2).integers(0, 256, (40, 50), dtype=np.uint16)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_gray_equals_the_same_image_in_8_bits(pixels, expected, form):
    """Transformers would clip it to white, so that the reference is the image saved in 8 bits."""
    wide, narrow = PIL.Image.fromarray(GRAY * 257), PIL.Image.fromarray(GRAY.astype(np.uint8))
    np.testing.assert_array_equal(pixels(saved(wide, form)), expected(narrow))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bit_pixels_are_rejected_with_their_mode(pixels, mode):
    with pytest.raises(InvalidArgumentError, match=f"^IMAGE: got 'pixels of mode {mode}'"):
        pixels(saved(PIL.Image.new(mode, (4, 4)), "TIFF"))


@pytest.mark.parametrize("name", ["plain", "turned", "transparent"])
def test_heic_is_decoded_as_displayed(name):
    """The files contain the example's scene, after lossy compression."""
    data = (HEIC_FILES / f"{name}.heic").read_bytes()
    scene = PIL.Image.open(EXAMPLE_SCENE).convert("L" if name == "transparent" else "RGB").resize((160, 120))
    wanted = scene.convert("RGB").transpose(PIL.Image.Transpose.ROTATE_270) if name == "turned" else scene
    picture = READER.load(data, data)
    assert (picture.mode, picture.size) == ("RGB", wanted.size)
    difference = np.abs(np.asarray(picture, int) - np.asarray(wanted.convert("RGB"), int))
    assert difference.mean() < 5
    text = b"data:image/heic;base64," + base64.b64encode(data)
    assert READER.file(text) == data


def test_heic_under_its_generic_brand_is_distinguished_from_avif():
    heic = (HEIC_FILES / "plain.heic").read_bytes().replace(b"ftypheic", b"ftypmif1", 1)
    assert READER.load(heic, heic).size == (160, 120)
    avif = saved(stain(), "AVIF").replace(b"ftypavif", b"ftypmif1", 1)
    assert READER.load(avif, avif).size == (90, 60)


def test_limits_apply_to_heic():
    data = (HEIC_FILES / "burst.heic").read_bytes()
    small = ImageReader(READER.formats, max_bytes=10_000, max_pixels=64 * 64, max_frames=6)
    assert small.load(data, data).getpixel((30, 30))[2] == pytest.approx(99, abs=4)
    with pytest.raises(InvalidArgumentError, match=r"HEIF with more frames.*at most 5 frames"):
        ImageReader(READER.formats, 10_000, 64 * 64, max_frames=5).load(data, data)
    with pytest.raises(InvalidArgumentError, match=r"64 x 64 pixels.*at most 4095 pixels"):
        ImageReader(READER.formats, 10_000, 64 * 64 - 1, max_frames=6).load(data, data)


@pytest.mark.parametrize("form", ["AVIF", "HEIF"])
def test_limits_are_checked_before_decoding(form, monkeypatch):
    data = saved(stain(), "AVIF") if form == "AVIF" else (HEIC_FILES / "plain.heic").read_bytes()
    opened_class = type(PIL.Image.open(io.BytesIO(data), formats=[form]))
    monkeypatch.setattr(opened_class, "load", lambda self: pytest.fail("decoded"))  # noqa: ARG005
    with pytest.raises(InvalidArgumentError, match="at most 100 pixels"):
        ImageReader(READER.formats, 10_000_000, max_pixels=100, max_frames=5).load(data, data)


def test_heic_can_be_disabled():
    data = (HEIC_FILES / "plain.heic").read_bytes()
    reader = ImageReader.of(EngineConfig(checkpoint="any", heic=0))
    with pytest.raises(InvalidArgumentError, match="JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF, its base64"):
        reader.load(data, data)


def test_without_pi_heif_all_other_formats_are_read(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with caplog.at_level("INFO", formats.__name__):
        assert readable_formats(heic=True) == readable_formats(heic=False)
    assert "pi-heif is not installed: HEIC images are rejected" in caplog.text


def test_avif_is_read_only_if_pillow_supports_it(monkeypatch):
    monkeypatch.setattr(PIL.features, "check", lambda feature: feature != "avif")
    assert readable_formats(heic=False) == ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def test_avif_files_are_decoded_one_at_a_time(monkeypatch):
    """A file with a false header may take half a gigabyte."""
    data = saved(stain(), "AVIF")
    opened_class = type(PIL.Image.open(io.BytesIO(data)))
    load, inside, most = opened_class.load, [], []

    def watched(self):
        if not self.tile:  # it is decoded already
            return load(self)
        inside.append(self)
        most.append(len(inside))
        threading.Event().wait(0.01)
        result = load(self)
        inside.remove(self)
        return result

    monkeypatch.setattr(opened_class, "load", watched)
    threads = [threading.Thread(target=READER.load, args=(data, data)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(most) == 4
    assert max(most) == 1
