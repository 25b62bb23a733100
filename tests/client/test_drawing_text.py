"""Letters of all scripts: their fonts, their order, and what is drawn if no font has them."""

import shutil
import subprocess

import numpy as np
import PIL.features
import pytest
from florence2 import Detections, Text, draw
from florence2.drawing import typefaces, typesetting
from florence2.drawing.clusters import clusters, language, printable, spelled
from florence2.drawing.typefaces import FontSource, Typeface, has_character, system_fonts
from florence2.drawing.typesetting import Typesetter, draw_line, is_leftward, length, shortened, wrapped
from PIL import Image, ImageFont

OWN = FontSource()
TEXTS = {
    "German": "Größe, Straße",
    "Greek": "κόκκινος κύκλος",
    "Cyrillic": "красный круг",
    "Arabic": "دائرة حمراء",
    "Hebrew": "עיגול אדום",
    "Hindi": "लाल वृत्त",
    "Thai": "วงกลมสีแดง",
    "Chinese": "红色圆形",
    "Japanese": "赤い円",
    "Korean": "빨간 원",
    "emoji": "🐶👩‍🚀🇩🇪👍🏽❤️",
    "symbols": "3 €, 2 ≤ 5 → “yes” … ✓",
}


@pytest.fixture
def fonts_in(monkeypatch):
    """`fonts_in(*folders)`: a system without fontconfig whose fonts are in these folders."""

    def install(*folders) -> None:
        monkeypatch.setattr(shutil, "which", lambda _: None)
        monkeypatch.setattr(typefaces, "_folders", lambda: list(folders))
        forget()

    def forget() -> None:
        for cached in (system_fonts, typesetting._system_faces, typesetting._report):
            cached.cache_clear()

    yield install
    forget()


def text_of(line) -> str:
    return "".join(glyph.text for glyph in line)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_text_of_any_script_has_fonts_with_all_its_letters(text):
    line = Typesetter(20).line(text)
    if text_of(line) != text:
        pytest.skip("no installed font has this script; .ci/run names packages that do")
    for glyph in line:
        assert glyph.face.has(glyph.text)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_each_letter_is_drawn_differently_from_a_missing_one(text):
    for part, face in Typesetter(20).line(text):
        if part.isspace():
            continue
        drawn, missing = Image.new("RGB", (60, 60)), Image.new("RGB", (60, 60))
        face.draw(drawn, (5, 40), part, (255, 255, 255))
        face.draw(missing, (5, 40), "\U0010fffd", (255, 255, 255))
        assert np.asarray(drawn).any(), part
        assert drawn != missing, part


def test_pillows_own_font_has_ascii_and_no_umlauts():
    assert all(has_character(OWN, chr(code)) for code in range(0x20, 0x7F))
    assert not any(has_character(OWN, letter) for letter in "üß日ж")


def test_the_characters_of_an_installed_font_are_those_that_fontconfig_lists():
    if shutil.which("fc-query") is None or not system_fonts():
        pytest.skip("no fontconfig, or no fonts")
    source = next(source for source in system_fonts() if not source.has_pictures)
    arguments = ["fc-query", "--index", str(source.index), "--format", "%{charset}", source.path]
    ranges = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.split()
    edges = [[int(edge, 16) for edge in each.split("-")] for each in ranges]
    listed = {code for each in edges for code in range(each[0], each[-1] + 1)}
    codes = [*range(0x21, 0x7F), *range(0xA1, 0x250), *range(0x370, 0x600), *range(0x4E00, 0x4E40)]
    codes = [code for code in codes if chr(code).isprintable() and code not in (0x34F, 0x61C)]
    wrong = [hex(code) for code in codes if has_character(source, chr(code)) != (code in listed)]
    assert len(wrong) <= 2, wrong  # a letter may look like the box for missing ones


def test_a_text_has_a_single_font_if_one_has_all_its_letters():
    line = Typesetter(20).line("Größe und Maß 92 %")
    if text_of(line) != "Größe und Maß 92 %":
        pytest.skip("no installed font has German letters")
    assert len({glyph.face for glyph in line}) == 1


def test_digits_beside_emoji_are_not_drawn_with_the_font_of_the_emoji():
    line = Typesetter(20).line("2 dogs 🐶")
    assert not any(glyph.face.has_pictures for glyph in line[:6])


def test_without_fonts_letters_lose_their_accents_and_a_warning_names_the_script(fonts_in, caplog):
    fonts_in()
    assert text_of(Typesetter(20).line("Größe: naïve 日本 \N{EN DASH} a")) == "Grosse: naive ?? - a"
    missing = [record.message.split(": ")[0].removeprefix("no font has ") for record in caplog.records]
    assert missing == ["all LATIN letters", "all CJK letters", "EN DASH"]
    caplog.clear()
    Typesetter(20).line("größer 日")
    assert not caplog.records
    for text in TEXTS.values():
        assert draw(Image.new("RGB", (200, 100)), Detections([[50, 40, 120, 80]], [text])).size == (200, 100)


def test_fonts_are_found_in_folders_without_fontconfig(fonts_in):
    folders = typefaces._folders()
    if not system_fonts():
        pytest.skip("no fonts")
    fonts_in(*folders)
    assert system_fonts()
    assert "bold" not in system_fonts()[0].path.lower()


def test_fonts_that_cannot_be_read_are_passed_over(fonts_in, tmp_path):
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    fonts_in(tmp_path, tmp_path / "missing")
    assert len(system_fonts()) == 1
    assert text_of(Typesetter(20).line("日")) == "?"


def test_given_fonts_come_first_and_in_their_order():
    paths = [source.path for source in system_fonts() if not source.has_pictures and has_character(source, "a")]
    if len(paths) < 2:
        pytest.skip("fewer than two fonts")
    assert {glyph.face.source.path for glyph in Typesetter(20, paths[:2]).line("abc")} == {paths[0]}
    assert {glyph.face.source.path for glyph in Typesetter(20, paths[1::-1]).line("abc")} == {paths[1]}
    result = Detections([[50, 40, 120, 80]], ["abc"])
    one, many = (draw(Image.new("RGB", (200, 100)), result, font=font) for font in (paths[0], paths[:2]))
    assert one == many


def test_a_font_of_bitmaps_only_is_scaled():
    emoji = next((source for source in system_fonts() if source.has_pictures), None)
    if emoji is None:
        pytest.skip("no font for emoji")
    small, large = (Typeface(emoji, size) for size in (20, 40))
    assert large.length("🐶") == pytest.approx(2 * small.length("🐶"), rel=0.05)
    picture = Image.new("RGB", (80, 60))
    large.draw(picture, (5, 45), "🐶", (255, 255, 255))
    hues = {tuple(pixel) for pixel in np.asarray(picture).reshape(-1, 3).tolist()}
    assert len(hues) > 50  # in colors


def ink(line, width: int = 400) -> np.ndarray:
    """The columns of pixels in which a line has ink."""
    picture = Image.new("RGB", (width, 60))
    draw_line(picture, (10, 40), line, (255, 255, 255))
    return np.flatnonzero(np.asarray(picture).any(axis=(0, 2)))


def test_hebrew_and_arabic_are_read_from_the_right():
    setter = Typesetter(20)
    assert is_leftward(setter.line("שלום 92 %"))
    assert is_leftward(setter.line("(مرحبا)"))
    assert not is_leftward(setter.line("dog שלום"))
    assert not is_leftward(setter.line("92 %"))


def test_a_score_beside_hebrew_is_at_its_left_whatever_the_font():
    setter = Typesetter(20)
    word, number = setter.line("שלום"), Typesetter(20).line("..")
    if text_of(word) != "שלום":
        pytest.skip("no installed font has Hebrew")
    assert word[0].face.source != number[0].face.source
    columns = ink([*word, *number])
    dots = ink(number)
    assert columns[0] == dots[0]  # the dots come first from the left


@pytest.mark.skipif(not PIL.features.check("raqm"), reason="this Pillow has no Raqm")
def test_arabic_letters_are_joined():
    line = Typesetter(40).line("ببب")
    if text_of(line) != "ببب":
        pytest.skip("no installed font has Arabic")
    assert length(line) != pytest.approx(3 * length(line[:1]), rel=0.05)


def test_lines_are_broken_after_spaces_and_between_wide_letters():
    setter = Typesetter(20)
    words = [text_of(line) for line in wrapped(setter.line("a dog lies on a mat"), 80)]
    assert " ".join(words) == "a dog lies on a mat"
    assert all(length(setter.line(line)) <= 80 for line in words)
    long = wrapped(setter.line("x" * 100), 80)
    assert {text_of(line) for line in long} == {"x" * len(long[0]), "x" * len(long[-1])}
    wide = Typesetter(20).line("红色圆形红色圆形")
    if text_of(wide) == "红色圆形红色圆形":
        assert [len(line) for line in wrapped(wide, 65)] == [3, 3, 2]


def test_shortened_lines_end_with_an_ellipsis_and_fit():
    setter = Typesetter(20)
    line = setter.line("a very long label")
    assert shortened(line, 1000, setter.ellipsis()) == line
    short = shortened(line, 90, setter.ellipsis())
    assert text_of(short).endswith("...")
    assert length(short) <= 90


def test_clusters_keep_marks_and_emoji_together():
    assert clusters("e\u0301a") == ["e\u0301", "a"]
    assert clusters("👩‍🚀🇩🇪🇫🇷👍🏽❤️1️⃣") == ["👩‍🚀", "🇩🇪", "🇫🇷", "👍🏽", "❤️", "1️⃣"]
    assert clusters("नमस्ते")[:2] == ["न", "म"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a\tb\nc", "a b c"), ("\0\x1b\ud800", "???"), ("\ufeffa\u202eb", "ab"), ("नि\u200dय", "नि\u200dय")],
)
def test_text_is_made_printable(text, expected):
    assert printable(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("赤い円", "ja"), ("빨간 원", "ko"), ("红色", "zh-cn"), ("red", ""), ("красный", "")]
)
def test_kana_and_hangul_decide_how_chinese_characters_look(text, expected):
    assert language(text) == expected


@pytest.mark.parametrize(("letter", "expected"), [("ü", "u"), ("ß", "ss"), ("日", "?"), ("Å", "A"), ("½", "12")])
def test_letters_are_spelled_in_ascii(letter, expected):
    assert spelled(letter) == expected


def test_each_line_of_a_text_strip_is_inside_the_picture():
    image = Image.new("RGB", (300, 100), (128, 128, 128))
    drawn = np.asarray(draw(image, Text("\n".join(TEXTS.values()) + "\n" + " ".join(TEXTS.values()))))
    assert (drawn[100:, :2] == 255).all()
    assert (drawn[100:, -2:] == 255).all()
    assert (drawn[-2:] == 255).all()


def test_the_default_font_is_pillows_own_so_that_pictures_of_ascii_look_the_same_everywhere():
    assert {glyph.face.source for glyph in Typesetter(20).line("red circle 92 %")} == {OWN}
    assert isinstance(ImageFont.load_default(20), ImageFont.FreeTypeFont)
