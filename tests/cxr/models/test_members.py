from pathlib import Path

from cxr.models.members import Member, list_members


def test_there_is_one_member_for_each_model_and_seed() -> None:
    members = list_members(["b", "a"], [2, 1])
    assert members == [Member("b", 2), Member("b", 1), Member("a", 2), Member("a", 1)]


def test_a_member_is_named_after_its_model_and_seed() -> None:
    member = Member("efficientnet_b3.ra2_in1k", 7)
    assert str(member) == "efficientnet_b3.ra2_in1k-7"
    assert member.file == Path("data/models/efficientnet_b3.ra2_in1k-7.safetensors")
