"""Added tokens of fine-tunes, and the original layout: ids are those of the checkpoint's own tokenizer."""

import json

import pytest
from florence2.options import Limit
from florence2.prompts import expand_prompt
from florence2.v1 import BoundingBox
from florence2_server.engine.tokenizer import PromptTokenizer
from florence2_server.v1.engine_pb2 import PromptPart
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AddedToken, AutoTokenizer, BartTokenizer

from tests.conftest import ROOT

SIZE = (1000, 1000)
LIMIT = Limit(447, "FLORENCE2_POSITIONS")
IMAGE_TOKEN = 51289  # the last official one
ORIGINAL_LAYOUT = ROOT.parent / "shared" / "original-layout" / "tiny"
CONTROLS = ("<s>", "</s>", "<pad>", "<unk>", "<mask>", "<image>")

PLAIN_WORDS = (
    AddedToken("partnumber"),
    AddedToken("Model No", lstrip=True),
    AddedToken("serial", rstrip=True, normalized=False),
    AddedToken("lot", single_word=True),
    AddedToken("[total]", lstrip=True, rstrip=True, single_word=True),
)
MARKUP = (
    AddedToken("<INVOICE>", lstrip=True, rstrip=True),
    AddedToken("<DocVQA>", normalized=False, special=True),
    AddedToken("<LEFT>", lstrip=True, normalized=False),
    AddedToken("<RIGHT>", rstrip=True, special=True),
    AddedToken("<ONE>", single_word=True),
    AddedToken("<a b>", special=True, lstrip=True, rstrip=True, normalized=False),
    AddedToken("[SPECIAL]", special=True),
)

# The same examples in every run.
repeatable = settings(max_examples=300, deadline=None, derandomize=True, database=None)

blanks = st.sampled_from([" ", "  ", "\n", "\t ", "\u00a0", ""])
words = st.sampled_from(["a", "Total", "is", "the", "größe", "猫", "'s", "1,024", ".", "_", "<", ">", "<x>", "{}"])
plain = st.sampled_from([token.content for token in PLAIN_WORDS] + ["<and>", "Partnumber", "LOT"])
markup = st.sampled_from([token.content for token in MARKUP] + ["<loc_5>", "<loc_999>", "<od>", "</poly>", "<sep>"])
texts = st.lists(blanks | words | plain, max_size=12).map("".join)
prompts = st.lists(blanks | words | plain | markup, max_size=12).map("".join)
hostile = st.lists(blanks | words | plain | markup | st.sampled_from(CONTROLS), max_size=12).map("".join)


@pytest.fixture(scope="module", params=["as it is", "lowercase", "prefix space", "split special tokens"])
def fine_tuned(request, real_processor_folder):
    """The official tokenizer with added tokens of every kind."""
    options = {"split_special_tokens": True} if request.param == "split special tokens" else {}
    tokenizer = AutoTokenizer.from_pretrained(real_processor_folder, **options)
    if request.param == "lowercase":
        tokenizer.backend_tokenizer.normalizer = Lowercase()
    if request.param == "prefix space":
        tokenizer.backend_tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=True)
    tokenizer.add_tokens(list(PLAIN_WORDS + MARKUP))
    assert {token.content for token in PLAIN_WORDS + MARKUP} <= set(tokenizer.get_added_vocab())
    return tokenizer


def encoded(tokenizer, **part):
    return PromptTokenizer(tokenizer, LIMIT).encode([PromptPart(**part)], SIZE)


def test_prompts_get_the_ids_of_the_checkpoints_own_tokenizer(fine_tuned):
    tokenizer = PromptTokenizer(fine_tuned, LIMIT)

    @repeatable
    @given(prompts)
    def compare(prompt):
        assert tokenizer.encode([PromptPart(markup=prompt)], SIZE) == fine_tuned(prompt).input_ids

    compare()


def test_words_and_the_separator_get_the_ids_of_the_checkpoints_own_tokenizer(fine_tuned):
    tokenizer = PromptTokenizer(fine_tuned, LIMIT)

    @repeatable
    @given(texts)
    def compare(text):
        assert tokenizer.encode([PromptPart(text=text)], SIZE) == fine_tuned(text).input_ids

    compare()


def test_prompts_never_become_control_tokens_and_words_never_become_markup(fine_tuned):
    tokenizer = PromptTokenizer(fine_tuned, LIMIT)
    controls = set(fine_tuned.convert_tokens_to_ids(CONTROLS))
    names = [token.content for token in MARKUP] + ["<loc_5>", "<loc_999>", "<od>", "</poly>", "<sep>"]
    special = controls | set(fine_tuned.convert_tokens_to_ids(names))

    @repeatable
    @given(hostile)
    def check(text):
        assert not controls & set(tokenizer.encode([PromptPart(markup=text)], SIZE)[1:-1])
        assert not special & set(tokenizer.encode([PromptPart(text=text)], SIZE)[1:-1])

    check()


def test_an_added_token_absorbs_white_space_as_declared(real_processor_folder):
    tokenizer = AutoTokenizer.from_pretrained(real_processor_folder)
    tokenizer.add_tokens([AddedToken("<INVOICE>", lstrip=True, rstrip=True), "partnumber"])
    invoice, partnumber = IMAGE_TOKEN + 1, IMAGE_TOKEN + 2
    total = tokenizer("total", add_special_tokens=False).input_ids
    assert encoded(tokenizer, markup="total  <INVOICE> \n total") == [0, *total, invoice, *total, 2]
    assert encoded(tokenizer, text="totalpartnumber") == [0, *total, partnumber, 2]
    assert invoice not in encoded(tokenizer, text="total <INVOICE> total")


def test_location_tokens_that_absorb_white_space_do_so_in_regions(real_processor_folder):
    tokenizer = AutoTokenizer.from_pretrained(real_processor_folder)
    tokenizer.backend_tokenizer.add_special_tokens(
        [AddedToken(f"<loc_{location}>", lstrip=True, rstrip=True, special=True) for location in range(1000)]
    )
    region = BoundingBox(x_min=52, y_min=332, x_max=932, y_max=774)
    parts = [PromptPart(markup="What is the region "), PromptPart(region=region), PromptPart(markup="?")]
    sentence = "What is the region <loc_52><loc_332><loc_932><loc_774>?"
    assert PromptTokenizer(tokenizer, LIMIT).encode(parts, SIZE) == tokenizer(sentence).input_ids


# The original layout.


@pytest.fixture(scope="module")
def original_layout():
    """Plain BART with the tokens that the original processor adds, in its order; there is no image token."""
    if not ORIGINAL_LAYOUT.is_dir():
        pytest.skip("no checkpoint in the original layout next to the repository (shared/original-layout)")
    tokenizer = BartTokenizer.from_pretrained(ORIGINAL_LAYOUT)
    pairs = [(f"<{name}>", f"</{name}>") for name in ("cap", "ncap", "dcap", "grounding", "seg")]
    more = [(f"<{name}>", f"</{name}>") for name in ("region_cap", "region_to_desciption", "proposal", "poly")]
    added = ["<od>", "</od>", "<ocr>", "</ocr>", *(f"<loc_{location}>" for location in range(1000))]
    added += [*sum(pairs, ()), "<sep>", *sum(more, ()), "<and>"]
    tokenizer.add_special_tokens({"extra_special_tokens": added})
    return tokenizer


def test_prompts_of_the_original_layout_get_the_ids_of_the_original_code(original_layout):
    tokenizer = PromptTokenizer(original_layout, LIMIT)
    answers = json.loads((ORIGINAL_LAYOUT / "expected.json").read_text())
    ids = {answer["prompt"]: answer["prompt_ids"] for answer in answers}
    assert len(ids) == 9
    for prompt, prompt_ids in ids.items():
        assert tokenizer.encode([PromptPart(markup=expand_prompt(prompt))], SIZE) == prompt_ids


@pytest.mark.parametrize("kind", ["text", "markup"])
def test_the_original_layout_needs_no_image_token(original_layout, kind):
    text = "a <image><s></s> b"
    assert original_layout.convert_tokens_to_ids("<and>") == 51288
    ids = encoded(original_layout, **{kind: text})[1:-1]
    assert not {0, 2, 3} & set(ids)
    assert PromptTokenizer(original_layout, LIMIT).decode(ids)[0] == text
    assert encoded(original_layout, **{kind: "car<and>building"}) == original_layout("car<and>building").input_ids
