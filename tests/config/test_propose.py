"""The file that is proposed for images: it loads, and chooses what a person would."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cellseg_pipe.config import ImageFacts, experiment_of, load_experiment, propose

FLAT = ImageFacts("a.tif", "a", (1024, 2048), "yx", spacing_um=(0.5, 0.5))


def facts(path="a.tif", name="", shape=(3, 64, 64), axes="cyx", **more):
    return ImageFacts(path, name, shape, axes, **{"spacing_um": (0.5, 0.5), **more})


def loaded(text):
    return experiment_of(yaml.safe_load(text))


def channels_of(*images):
    return loaded(propose(images)).targets["nuclei"].channels


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (("CD45", "DAPI", "CD8"), ("DAPI",)),
        (("GFP", "Hoechst 33342"), ("Hoechst 33342",)),
        (("actin", "Nuclei"), ("Nuclei",)),
        (("488", "405"), ("405",)),
        (("dapi", "DAPI"), (0,)),  # no name tells them apart
        (("A", "B"), (0,)),
        ((), (0,)),
    ],
)
def test_the_channel_of_nuclei_is_chosen_by_its_name(names, chosen):
    count = len(names) or 2
    image = facts(shape=(count, 64, 64), channel_names=names)
    assert channels_of(image) == chosen
    text = propose([image])
    assert all(name in text for name in names)


def test_one_channel_and_colours():
    assert channels_of(FLAT) is None
    colour = facts(rgb=True, dtype="uint8")
    assert channels_of(colour) == ("hematoxylin",)
    assert "colours of a stained section; of fluorescence: grey" in propose([colour])


def test_images_that_differ_have_channels_of_their_own():
    one = facts("a.tif", shape=(2, 64, 64), channel_names=("DAPI", "GFP"))
    other = facts("b.tif", shape=(2, 64, 64), channel_names=("GFP", "Hoechst"))
    found = loaded(propose([one, other, FLAT], output_dir="o", model="m"))
    assert [image.channels for image in found.images] == [("DAPI",), ("Hoechst",), None]
    assert found.targets["nuclei"].channels is None
    assert (found.targets["nuclei"].model, found.targets["nuclei"].diameter_um) == ("m", "auto")
    assert found.output.dir.endswith("/o")


@pytest.mark.parametrize(
    ("spacing", "words"),
    [
        ((2.0, 0.5, 0.5), "planes lie 4 pixels apart: from three sides (3d)"),
        ((4.0, 0.5, 0.5), "planes lie 8 pixels apart: plane by plane, joined through z (planes)"),
        (None, "as if voxels were cubes: give spacing_um, or mode planes"),
    ],
)
def test_what_auto_will_be_for_a_volume(spacing, words):
    text = propose([facts(shape=(30, 64, 64), axes="zyx", spacing_um=spacing)])
    assert f"mode: auto  # {words}\n" in text or words in text
    assert ("# spacing_um: [0.5, 0.5, 0.5]  # z, y, x" in text) == (spacing is None)
    assert "# export: [csv]  #" in text
    assert loaded(text).segment.mode == "auto"


def test_what_is_in_comments_can_be_switched_on(tmp_path):
    image = facts(shape=(64, 64), axes="yx", spacing_um=None)
    text = propose([image])
    lines = [line.replace("# ", "", 1) if ": [" in line or "shold: " in line else line
             for line in text.splitlines()]  # fmt: skip
    found = loaded("\n".join(lines))
    assert found.images[0].spacing_um == (0.5, 0.5)
    assert found.output.export == ("csv", "geojson")
    assert found.segment.flow_threshold == 0.4


def test_nothing_to_propose():
    with pytest.raises(ValueError, match="needs one image or more, got none"):
        propose([])


odd = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)
path_names = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="/$~"),
    min_size=1,
)


@given(data=st.data(), name=odd, path=path_names, rgb=st.booleans())
def test_whatever_names_are_in_a_file_the_proposal_loads(tmp_path_factory, data, name, path, rgb):
    count = data.draw(st.integers(1, 5))
    names = data.draw(st.lists(odd, min_size=count, max_size=count) | st.just([]))
    spacing = data.draw(st.none() | st.just((1.0, 0.5, 0.5)))
    image = ImageFacts(
        f"/x/{path}", name, (count, 5, 9, 9), "czyx", tuple(names), spacing, rgb and count == 3
    )
    text = propose([image, FLAT])
    file = tmp_path_factory.getbasetemp() / "proposed.yaml"
    file.write_text(text, encoding="utf-8", newline="")
    found = load_experiment(file)
    assert found.images[1].path.endswith("/a.tif")
    chosen = found.images[0].channels or found.targets["nuclei"].channels
    if chosen is not None and isinstance(chosen[0], str) and chosen != ("hematoxylin",):
        assert [n.strip().casefold() for n in names].count(chosen[0].strip().casefold()) == 1
