"""The declaration of the generation options, and what has to agree with it."""

import re
from typing import get_args, get_type_hints

import pytest
from florence2 import v1
from florence2.options import (
    EARLY_STOPPING,
    GENERATION_OPTIONS,
    CallOptions,
    FilterOptions,
    Limit,
    RunOptions,
    TaskOptions,
    check_generation,
    options_docstring,
    options_table,
    set_options,
)
from google.protobuf.descriptor import FieldDescriptor

from tests.conftest import ROOT

FIELDS = v1.GenerationOptions.DESCRIPTOR.fields_by_name
FIELD_TYPES = {
    FieldDescriptor.CPPTYPE_INT32: int,
    FieldDescriptor.CPPTYPE_FLOAT: float,
    FieldDescriptor.CPPTYPE_BOOL: bool,
}
PROTO = (ROOT / "protos/florence2/v1/inference.proto").read_text()
OPTIONS = list(GENERATION_OPTIONS.values())


def by_name(option):
    return option.name


def values_of(option) -> list:
    """The ends of an option's range, or all of its choices."""
    if option.choices is not None:
        return list(option.choices)
    if option.type is bool:
        return [True, False]
    return [option.least, option.least + 1 if isinstance(option.most, str) else option.most]


def test_the_declared_options_are_the_fields_of_the_message():
    assert set(GENERATION_OPTIONS) == set(FIELDS)


@pytest.mark.parametrize("option", OPTIONS, ids=by_name)
def test_an_option_has_the_type_of_its_field_and_of_its_keyword(option):
    field = FIELDS[option.name]
    if option.choices is None:
        assert option.type is FIELD_TYPES[field.cpp_type]
        assert field.has_presence  # 0 and False are values, not their absence
    else:
        assert {0, *option.choices.values()} == set(field.enum_type.values_by_number)
    assert get_type_hints(TaskOptions)[option.name] == get_type_hints(TaskOptions)[option.name] | None
    assert option.type in get_args(get_type_hints(TaskOptions)[option.name])


@pytest.mark.parametrize("option", OPTIONS, ids=by_name)
def test_the_comment_of_the_field_states_the_range(option):
    (comment,) = re.findall(rf"((?: *//.*\n)+) *\S+ ?\w* {option.name} = \d+;", PROTO)
    words = " ".join(re.findall(r"// (.*)", comment))
    if option.type is not bool:
        assert (f"{option.least} to " if isinstance(option.most, str) else option.values) in words


def test_the_keywords_are_the_adapter_the_generation_options_and_those_of_a_call():
    assert TaskOptions.__optional_keys__ == {"adapter", *GENERATION_OPTIONS, *RunOptions.__optional_keys__}
    assert RunOptions.__optional_keys__ == {*CallOptions.__optional_keys__, *FilterOptions.__optional_keys__}


@pytest.mark.parametrize("option", OPTIONS, ids=by_name)
def test_every_value_at_the_ends_of_a_range_is_sent_and_read_back(option):
    for value in values_of(option):
        request = v1.TaskRequest()
        set_options(request, {option.name: value})
        (read,) = check_generation(request.generation).items()
        assert read == (option.name, pytest.approx(value) if option.type is float else value)


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.type is not bool], ids=by_name)
def test_a_server_may_lower_the_highest_value(option):
    generation = v1.GenerationOptions(**{option.name: 7})
    limits = {option.name: Limit(6, "A_SETTING")}
    with pytest.raises(ValueError, match=rf"generation\.{option.name}: got 7\S*, expected {option.least} to 6 \(A_S"):
        check_generation(generation, limits)


def test_early_stopping_has_a_value_for_every_member_but_unspecified():
    unspecified = v1.EarlyStopping.EARLY_STOPPING_UNSPECIFIED
    assert {unspecified, *EARLY_STOPPING.values()} == set(v1.EarlyStopping.values())


@pytest.mark.parametrize("option", OPTIONS, ids=by_name)
def test_an_option_is_documented_in_the_table_and_in_the_docstring(option):
    (row,) = [row for row in options_table().splitlines() if row.startswith(f"| `{option.name}` |")]
    assert option.doc in row
    assert option.values in row
    assert row.count("|") == 5
    docstring = " ".join(options_docstring("    ").split())
    assert f"{option.name}: {option.values}; default: " in docstring
    assert option.doc in docstring
    assert options_docstring("        ") in TaskOptions.__doc__
