"""Names load on first use, and are all there."""

import pytest

import ttqlib as ttq
from tests.cases import refused


@pytest.mark.parametrize("name", ttq.__all__)
def test_every_public_name_resolves_and_is_listed(name):
    assert getattr(ttq, name) is getattr(ttq, name)
    assert name in dir(ttq)


def test_an_unknown_name_is_an_attribute_error():
    with refused(AttributeError, "ttqlib", "no_such_thing"):
        _ = ttq.no_such_thing
