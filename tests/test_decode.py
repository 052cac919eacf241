"""Every odd file a photo folder holds: read rightly, or refused with a reason."""

import io
import struct
import sys
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo

from topgraft.errors import DataError, DecodeError
from topgraft.photos import decode as decoding
from topgraft.photos.decode import decode, from_pillow, read_picture
from topgraft.photos.remarks import remark


def encode(picture: Pillow.Image, form: str = "PNG", **options) -> bytes:
    held = io.BytesIO()
    picture.save(held, form, **options)
    return held.getvalue()


RED = Pillow.new("RGB", (6, 4), (200, 10, 20))


def test_plain_rgb_keeps_its_pixels_and_can_be_written_to():
    image = decode(encode(RED))
    assert image.shape == (4, 6, 3)
    assert image.dtype == np.uint8
    assert (image == (200, 10, 20)).all()
    image[0, 0] = 0


def test_orientation_is_applied():
    picture = Pillow.new("RGB", (6, 4), "white")
    picture.putpixel((0, 0), (255, 0, 0))
    exif = Pillow.Exif()
    exif[0x0112] = 6  # the camera was turned: the first stored row is the right column
    image = decode(encode(picture, "PNG", exif=exif))
    assert image.shape == (6, 4, 3)
    assert tuple(image[0, 3]) == (255, 0, 0)


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_picture_is_turned_once_however_often_it_is_handed_on(turn):
    exif = Pillow.Exif()
    exif[0x0112] = turn
    data = encode(Pillow.effect_noise((6, 4), 90).convert("RGB"), "JPEG", exif=exif)
    picture = read_picture(data)
    assert picture.mode == "RGB"
    assert (np.asarray(from_pillow(picture)) == decode(data)).all()


def test_alpha_lies_over_white():
    picture = Pillow.new("RGBA", (2, 1), (0, 0, 0, 0))
    picture.putpixel((1, 0), (100, 0, 0, 255))
    assert decode(encode(picture)).tolist() == [[[255, 255, 255], [100, 0, 0]]]


def test_a_transparent_palette_lies_over_white():
    picture = Pillow.new("P", (2, 1), 0)
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    image = decode(encode(picture, "PNG", transparency=0))
    assert image.tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_sixteen_bits_are_scaled_not_cut():
    levels = np.array([[0, 257, 65535, 32896]], dtype=np.uint16)
    image = decode(encode(Pillow.fromarray(levels)))
    assert image[0, :, 0].tolist() == [0, 1, 255, 128]
    assert (image[..., 0] == image[..., 2]).all()


def test_float_pictures_in_the_unit_range_are_scaled():
    image = decode(encode(Pillow.fromarray(np.array([[0, 0.5, 1.0]], np.float32)), "TIFF"))
    assert image[0, :, 1].tolist() == [0, 128, 255]


def test_floats_that_are_no_numbers_do_not_decide_the_scale():
    levels = np.array([[np.nan, np.inf, -np.inf, 0.5, 1.0001]], np.float32)
    image = decode(encode(Pillow.fromarray(levels), "TIFF"))
    assert image[0, :, 1].tolist() == [0, 255, 0, 128, 255]


def test_no_other_decoder_than_those_of_photos_sees_a_file():
    for form in ("EPS", "PDF", "PPM"):
        with pytest.raises(DecodeError, match="not a picture in a known format"):
            decode(encode(RED, form), "a.jpg")
    for form in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "JPEG2000"):
        assert decode(encode(RED, form)).shape == (4, 6, 3)


def test_decoding_in_threads_leaves_warnings_as_they_are():
    data = encode(Pillow.effect_noise((64, 64), 90), "JPEG")
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [data] * 200))
    assert warnings.filters == before


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA"])
def test_grey_and_palette_become_rgb(mode):
    image = decode(encode(Pillow.new("L", (3, 3), 255).convert(mode)))
    assert image.shape == (3, 3, 3)
    assert (image == 255).all()


def test_cmyk_becomes_the_colour_a_person_sees():
    image = decode(encode(RED.convert("CMYK"), "JPEG", quality=98))
    assert np.abs(image.astype(int) - (200, 10, 20)).max() < 12


def test_the_first_frame_of_an_animation_counts():
    frames = [Pillow.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert tuple(decode(data)[0, 0]) == (255, 0, 0)


def test_too_large_is_refused_before_any_pixel_is_allocated():
    with pytest.raises(DecodeError, match="6 x 4, larger than 20 pixels"):
        decode(encode(RED), most=20)


def test_a_bomb_is_refused_by_its_header():
    data = bytearray(encode(Pillow.new("1", (8, 8))))
    data[16:24] = (100_000).to_bytes(4, "big") * 2  # the PNG header now claims 10 gigapixels
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    with pytest.raises(DecodeError, match="larger than"):
        decode(bytes(data))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"not a picture at all", "not a picture in a known format"),
        (encode(RED, "JPEG")[:-200], "damaged"),
        (encode(Pillow.effect_noise((64, 64), 90))[:-900], "damaged"),
    ],
)
def test_what_is_no_picture_says_why(data, reason):
    with pytest.raises(DecodeError, match=reason) as caught:
        decode(data, "a/b.jpg")
    assert caught.value.place == "a/b.jpg"
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, DataError | ValueError)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(DecodeError, match="cannot be opened"):
        decode(tmp_path / "gone.jpg")


def test_a_broken_exif_block_costs_no_photo():
    exif = Pillow.Exif()
    exif[0x0112] = 6
    exif[0x011A] = 72.0
    data = encode(RED, "JPEG", exif=exif)
    # The resolution as text where a fraction belongs: what Pillow cannot write back it must not have to.
    at = data.index(b"\x01\x1a\x00\x05") if b"\x01\x1a\x00\x05" in data else data.index(b"\x1a\x01\x05\x00")
    kind = data[at + 2 : at + 4].replace(b"\x05", b"\x02")
    assert decode(data[: at + 2] + kind + data[at + 4 :]).shape == (6, 4, 3)


@pytest.mark.parametrize("what", ["text", "profile"])
def test_megabytes_beside_the_pixels_of_a_png_do_no_harm(what):
    if what == "text":
        info = PngInfo()
        info.add_text("story", "x" * 3_000_000, zip=True)
        data = encode(RED, "PNG", pnginfo=info)
    else:
        data = encode(RED, "PNG", icc_profile=bytes(3_000_000))
    assert (decode(data) == (200, 10, 20)).all()


def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_is_decoded():
    data = encode(RED, "JPEG", progressive=True)
    head, scan, rest = data.partition(b"\xff\xda")
    whole = scan + rest[: rest.index(b"\xff")]
    with pytest.raises(DecodeError, match="is a JPEG of 9,999 scans, more than 200; save it anew"):
        decode(head + whole * 9999)


def test_what_a_telephone_puts_behind_or_into_a_jpeg_is_no_scan_of_it():
    """A film behind the picture holds the bytes of a scan's beginning once in 64 kB, by chance."""
    for progressive in (False, True):
        data = encode(RED, "JPEG", progressive=progressive)
        assert (decode(data + b"\xff\xda" * 300) == decode(data)).all()
        thumbnail = b"\xff\xe2" + struct.pack(">H", 602) + b"\xff\xda" * 300
        assert (decode(data[:2] + thumbnail + data[2:]) == decode(data)).all()


def test_a_jpeg_of_endless_segments_is_refused_before_it_is_decoded():
    data = encode(RED, "JPEG")
    with pytest.raises(DecodeError, match="is a JPEG of 100,000 scans, more than 200; save it anew"):
        decode(data[:2] + b"\xff\xe2\0\2" * 200_000 + data[2:])


def test_twelve_bits_in_sixteen_are_scaled_by_their_twelve():
    levels = np.array([[0, 1024, 2048, 4095]], dtype=np.uint16)
    assert decode(encode(Pillow.fromarray(levels)))[0, :, 0].tolist() == [0, 64, 128, 255]


def test_deep_pictures_take_no_more_than_12_bytes_a_pixel():
    side = 3000
    data = encode(Pillow.fromarray(np.full((side, side), 40_000, np.uint16)))
    tracemalloc.start()
    decode(data)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 12 * side * side


def test_heic_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    decoding.all_formats.cache_clear()
    try:
        with pytest.raises(DecodeError, match=r"is HEIC; install it with: pip install 'topgraft\[heic\]'"):
            decode(b"\0\0\0\x18ftypheic" + bytes(100))
    finally:
        decoding.all_formats.cache_clear()


def test_heic_is_read_with_its_extra():
    heif = pytest.importorskip("pillow_heif", reason="needs the heic extra")
    heif.register_heif_opener()
    image = decode(encode(RED.resize((64, 64)), "HEIF", quality=95))
    assert np.abs(image.astype(int) - (200, 10, 20)).max() < 12


def test_scans_times_pixels_are_bounded_too():
    """Of a large picture, fewer scans are decoded: what counts is the time, which no Ctrl-C ends."""
    data = encode(RED.resize((64, 64)), "JPEG", progressive=True)
    head, scan, rest = data.partition(b"\xff\xda")
    long = head + (scan + rest[: rest.index(b"\xff")]) * 50
    at = long.index(b"\xff\xc2") + 5  # height and width of the frame
    large = long[:at] + struct.pack(">HH", 8000, 8000) + long[at + 4 :]
    with pytest.raises(DecodeError, match="is a JPEG of 50 scans, more than 31; save it anew"):
        decode(large)


def png_bits(levels, bits):
    """Return a 16-bit grey PNG whose file says how many bits it uses."""
    data = encode(Pillow.fromarray(levels))
    chunk = b"sBIT" + bytes([bits])
    at = data.index(b"IDAT") - 4
    return data[:at] + struct.pack(">I", 1) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[at:]


@pytest.mark.parametrize(("bits", "white"), [(10, 1023), (12, 4095), (14, 16383), (16, 65535)])
def test_the_bits_that_a_file_says_it_uses_count_before_any_guess(bits, white):
    levels = np.array([[0, 600, 1000]], dtype=np.uint16)
    expected = np.rint(levels[0] / white * 255).astype(int).tolist()
    assert decode(png_bits(levels, bits))[0, :, 0].tolist() == expected
    tiff = encode(Pillow.fromarray(levels), "TIFF", tiffinfo={281: white})
    assert decode(tiff)[0, :, 0].tolist() == expected


def test_levels_above_what_a_file_says_are_not_cut():
    levels = np.array([[0, 40_000]], dtype=np.uint16)
    assert decode(png_bits(levels, 12))[0, :, 0].tolist() == [0, round(40_000 / 65535 * 255)]


@pytest.mark.parametrize("form", ["PNG", "TIFF", "GIF", "BMP", "WEBP", "JPEG"])
def test_half_a_file_is_refused(form):
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    data = encode(Pillow.fromarray(noise), form)
    assert decode(data).shape == (60, 80, 3)
    with pytest.raises(DecodeError, match=r"is (damaged|not a picture)"):
        decode(data[: len(data) // 2])


def test_a_png_whose_pixels_are_damaged_is_refused():
    """Its EXIF data are read first, which loads it: that error must not be the last word of it."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    data = bytearray(encode(Pillow.fromarray(noise)))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(DecodeError, match="is damaged"):
        decode(bytes(data))


def every_kind():
    """Return a small file of each format and kind."""
    rng = np.random.default_rng(0)
    picture = Pillow.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8))
    deep = Pillow.fromarray(rng.integers(0, 65536, (40, 60)).astype(np.uint16))
    exif = Pillow.Exif()
    exif[0x0112] = 6
    return [
        encode(picture, "JPEG", exif=exif),
        encode(picture, "JPEG", progressive=True),
        encode(picture.convert("CMYK"), "JPEG"),
        encode(picture, "PNG"),
        encode(deep, "PNG"),
        encode(deep, "TIFF"),
        encode(picture, "TIFF", compression="tiff_lzw"),
        encode(picture.convert("P"), "GIF"),
        encode(picture, "WEBP"),
        encode(picture, "BMP"),
        encode(picture, "JPEG2000"),
        encode(picture, "AVIF"),
    ]


@pytest.mark.parametrize("many", [600, pytest.param(24_000, marks=pytest.mark.nightly)])
def test_mutated_files_are_pictures_or_refused(many):
    """Bytes are changed, zeroed, cut off or doubled: what a bad disk, cable or program does to photos."""
    rng, kinds, refused = np.random.default_rng(many), every_kind(), 0
    for number in range(many):
        data = bytearray(kinds[number % len(kinds)])
        at = int(rng.integers(len(data)) ** rng.choice([0.5, 1]))  # headers more often than pixels
        match rng.integers(4):
            case 0:
                data[at] = rng.integers(256)
            case 1:
                data[at : at + 16] = bytes(len(data[at : at + 16]))
            case 2:
                del data[at:]
            case 3:
                data[at:at] = data[at : at + 40]
        try:
            image = decode(bytes(data))
        except DecodeError as error:
            refused += 1
            said = str(error)
        else:
            assert image.dtype == np.uint8
            assert image.shape[2] == 3
            said = remark(bytes(data), image)
        assert "\n" not in said
    assert 0 < refused < many
