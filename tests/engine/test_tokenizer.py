import random

import pytest
from florence2.errors import InvalidArgumentError
from florence2.options import Limit
from florence2.v1 import BoundingBox
from florence2_server.engine.tokenizer import PromptTokenizer
from florence2_server.v1.engine_pb2 import PromptPart
from transformers import AutoTokenizer

SIZE = (1000, 500)
BOS, EOS = 0, 2
FIRST_LOCATION = 50269
AND, IMAGE = 51288, 51289


@pytest.fixture(scope="module")
def reference(real_processor_folder):
    return AutoTokenizer.from_pretrained(real_processor_folder)


@pytest.fixture(scope="module")
def tokenizer(reference):
    return PromptTokenizer(reference, Limit(447, "FLORENCE2_POSITIONS"))


@pytest.mark.parametrize(
    "text",
    [
        "What does the image describe?",
        "Locate a  cat , ünïcode 猫 🐈 in the image.",
        " leading",
        "trailing ",
        "\n\t\x00",
    ],
)
def test_text_is_encoded_as_the_reference_does(tokenizer, reference, text):
    expected = [BOS, *reference(text, add_special_tokens=False).input_ids, EOS]
    assert tokenizer.encode([PromptPart(text=text)], SIZE) == expected


def test_a_region_becomes_location_tokens(tokenizer, reference):
    region = BoundingBox(x_min=52, y_min=166.4, x_max=932.9, y_max=387)
    parts = [PromptPart(text="What is the region "), PromptPart(region=region), PromptPart(text="?")]
    text = "<s>What is the region <loc_52><loc_332><loc_932><loc_774>?</s>"
    assert tokenizer.encode(parts, SIZE) == reference(text, add_special_tokens=False).input_ids


def test_markup_recognizes_the_checkpoints_prompt_tokens(tokenizer, reference):
    markup = "What is the region <loc_52><loc_332><loc_932><loc_774>? <od> tail"
    expected = reference(markup, add_special_tokens=False).input_ids
    assert tokenizer.encode([PromptPart(markup=markup)], SIZE) == [BOS, *expected, EOS]


@pytest.mark.parametrize("kind", ["text", "markup"])
@pytest.mark.parametrize("control", ["<s>", "</s>", "<pad>", "<unk>", "<mask>", "<image>"])
def test_control_tokens_in_a_prompt_are_plain_text(tokenizer, reference, kind, control):
    ids = tokenizer.encode([PromptPart(**{kind: f"a {control} b"})], SIZE)[1:-1]
    assert not {reference.convert_tokens_to_ids(control)} & set(ids)
    assert tokenizer.decode(ids)[0] == f"a {control} b"


@pytest.mark.parametrize("token", ["<loc_5>", "<OD>", "<od>", "<poly>", "<loc_999><loc_0>"])
def test_a_callers_text_never_becomes_special_tokens(tokenizer, token):
    ids = tokenizer.encode([PromptPart(text=f"a {token} b")], SIZE)[1:-1]
    assert max(ids) < FIRST_LOCATION - 5
    assert tokenizer.decode(ids)[0] == f"a {token} b"


@pytest.mark.parametrize("words", ["car<and>building", "a car <and> a building", "<and>", "<and><and>x"])
def test_the_separator_in_a_callers_text_is_the_models_own(tokenizer, reference, words):
    ids = tokenizer.encode([PromptPart(text=words)], SIZE)
    assert ids == reference(words).input_ids
    assert ids.count(AND) == words.count("<and>")


def test_a_prompt_is_limited_to_the_positions_that_the_image_leaves(tokenizer):
    assert len(tokenizer.encode([PromptPart(text="cat" * 445)], SIZE)) == 447
    with pytest.raises(InvalidArgumentError, match=r"^prompt: got '448 tokens', expected at most 447 tokens"):
        tokenizer.encode([PromptPart(text="cat" * 446)], SIZE)
    with pytest.raises(InvalidArgumentError, match=r"^phrase_grounding\.caption: got '448 tokens'"):
        tokenizer.encode([PromptPart(text="cat" * 446, field="phrase_grounding.caption")], SIZE)


@pytest.mark.parametrize(
    ("corners", "side"),
    [
        ((0, 0, 1001.5, 10), "x_max"),
        ((-2, 0, 10, 10), "x_min"),
        ((10, 0, 10, 10), "x_max"),
        ((0, 20, 10, 10), "y_max"),
        ((float("nan"), 0, 10, 10), "x_min"),
    ],
)
def test_a_region_outside_the_image_is_rejected_by_its_full_path(tokenizer, corners, side):
    region = BoundingBox(**dict(zip(("x_min", "y_min", "x_max", "y_max"), corners, strict=True)))
    part = PromptPart(region=region, field="region_to_category.region")
    with pytest.raises(InvalidArgumentError, match=rf"^region_to_category\.region\.{side}: got "):
        tokenizer.encode([part], SIZE)


def test_a_region_a_pixel_outside_is_clamped(tokenizer):
    outside = PromptPart(region=BoundingBox(x_min=-1, y_min=-0.0001, x_max=1001, y_max=500.00006))
    whole = PromptPart(markup="<loc_0><loc_0><loc_999><loc_999>")
    assert tokenizer.encode([outside], SIZE) == tokenizer.encode([whole], SIZE)


def test_decoded_text_keeps_its_special_tokens(tokenizer):
    assert tokenizer.decode([2, 0, 38951, FIRST_LOCATION, 2])[0].startswith("</s><s>")
    assert tokenizer.decode([FIRST_LOCATION + 7])[0] == "<loc_7>"


def test_tokens_are_decoded_as_the_reference_does(tokenizer, reference):
    chosen = random.Random(0)
    for _ in range(50):
        ids = [chosen.randrange(len(reference)) for _ in range(40)]
        text, ends = tokenizer.decode(ids)
        assert text == reference.decode(ids)
        assert ends == sorted(ends)
        assert ends[-1] == len(text.encode())


def test_tokens_decoded_a_few_at_a_time_are_decoded_as_all_at_once(tokenizer, reference):
    """Random tokens are often parts of characters, or none that UTF-8 allows."""
    chosen = random.Random(1)
    for _ in range(200):
        ids = [chosen.choice([chosen.randrange(len(reference)), chosen.randrange(260)]) for _ in range(12)]
        cuts = sorted(chosen.sample(range(len(ids)), 4))
        decoder = tokenizer.start_decoding()
        pieces = [decoder.decode(ids[start:end]) for start, end in zip([0, *cuts], cuts, strict=False)]
        pieces.append(decoder.decode(ids[cuts[-1] :], is_last=True))
        texts, ends = zip(*pieces, strict=True)
        assert ("".join(texts), [end for each in ends for end in each]) == tokenizer.decode(ids)


def test_the_text_of_an_incomplete_character_waits_for_its_last_token(tokenizer, reference):
    ids = reference("🐈", add_special_tokens=False).input_ids
    decoder = tokenizer.start_decoding()
    pieces = [decoder.decode([token_id]) for token_id in ids]
    assert len(ids) > 1
    assert pieces == [("", [0])] * (len(ids) - 1) + [("🐈", [4])]
    assert decoder.decode(ids[:1]) == ("", [4])
    assert decoder.decode([], is_last=True) == ("", [])
    assert decoder.decode([EOS], is_last=True)[0] == "\N{REPLACEMENT CHARACTER}</s>"


def test_token_ends_delimit_the_tokens(tokenizer, reference):
    ids = [EOS, BOS, *reference("größte 日本 🐈", add_special_tokens=False).input_ids, FIRST_LOCATION, EOS]
    text, ends = tokenizer.decode(ids)
    data = text.encode()
    pieces = [data[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]
    assert "".join(pieces) == text == "</s><s>größte 日本 🐈<loc_0></s>"
    assert pieces[:2] == ["</s>", "<s>"]
    assert pieces[-2:] == ["<loc_0>", "</s>"]
    # A character that spans several tokens belongs to the last of them.
    assert "日" in pieces
    assert "" in pieces


def test_a_token_beyond_the_tokenizers_vocabulary_is_empty(tokenizer, reference):
    beyond = 51_327  # official checkpoints have 51,328 words or 51,289
    assert beyond >= len(reference)
    assert tokenizer.decode([BOS, beyond, EOS]) == ("<s></s>", [3, 3, 7])
    assert reference.decode([BOS, beyond, EOS]) == "<s></s>"


def test_no_tokens_decode_to_empty_text(tokenizer):
    assert tokenizer.decode([]) == ("", [])
