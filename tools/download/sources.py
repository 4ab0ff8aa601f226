"""URLs, sizes and MD5 checksums of the files of NIH ChestX-ray14."""

from typing import NamedTuple

BROWSER_PAGE = "https://nihcc.app.box.com/v/ChestXray-NIHCC"
_STATIC = "https://nihcc.box.com/shared/static"
_SHARED = "https://nihcc.app.box.com/index.php?rm=box_download_shared_file&vanity_name=ChestXray-NIHCC&file_id=f_"


class Source(NamedTuple):
    """A file to download."""

    name: str
    url: str
    size: int  # bytes
    md5: str
    page: str = BROWSER_PAGE  # where a browser finds the file


# As published in NIH's FAQ.
_ARCHIVES = (
    ("vfk49d74nhbxq3nqjg0900w5nvkorp5c", 2_008_470_987, "fe8ed0a6961412fddcbb3603c11b3698"),
    ("i28rlmbvmfjbl8p2n3ril0pptcmcu9d1", 3_952_623_504, "ab07a2d7cbe6f65ddd97b4ed7bde10bf"),
    ("f1t00wrtdk94satdfb9olcolqx20z2jp", 3_929_234_850, "2301d03bde4c246388bad3876965d574"),
    ("0aowwzs5lhjrceb3qp67ahp0rd1l1etg", 3_838_903_983, "9f1b7f5aae01b13f4bc8e2c44a4b8ef6"),
    ("v5e3goj22zr6h8tzualxfsqlqaygfbsn", 3_935_496_531, "1861f3cd0ef7734df8104f2b0309023b"),
    ("asi7ikud9jwnkrnkj99jnpfkjdes7l6l", 3_986_301_172, "456b53a8b351afd92a35bc41444c58c8"),
    ("jn1b4mw4n6lnh74ovmcjb8y48h8xj07n", 4_016_328_426, "1075121ea20a137b87f290d6a4a5965e"),
    ("tvpxmn7qyrgl0w8wfh9kqfjskv6nmm1j", 4_018_347_353, "b61f34cec3aa69f295fbb593cbd9d443"),
    ("upyy3ml7qdumlgk2rfcvlb9k6gvqq2pj", 4_111_327_929, "442a3caa61ae9b64e61c561294d1e183"),
    ("l6nilvfa9cg3s28tqv1qc1olm3gnz54p", 4_181_556_296, "09ec81c4c31e32858ad8cf965c494b74"),
    ("hhq8fkdgvcari67vfhs7ppg2w6ni4jze", 4_187_084_020, "499aefc67207a5a97692424cf5dbeed5"),
    ("ioqwiy20ihqwyr8pf4c24eazhh281pbu", 2_914_187_733, "dc9fda1757c2de0032b63347a7d2895c"),
)
ARCHIVES = tuple(
    Source(f"images_{number:03d}.tar.gz", f"{_STATIC}/{identity}.gz", size, md5)
    for number, (identity, size, md5) in enumerate(_ARCHIVES, 1)
)
TABLES = (
    Source("Data_Entry_2017_v2020.csv", f"{_SHARED}219760887468", 9_003_496, "63a8ca1a1b1f7a0e77d3db6522191103"),
    Source("BBox_List_2017.csv", f"{_SHARED}219760940956", 92_416, "c288912caf65ab8b6c7aff6717d11005"),
    Source("train_val_list.txt", f"{_SHARED}256056636701", 1_470_907, "067e3a84206964892e6300e4a4c0a205"),
    Source("test_list.txt", f"{_SHARED}256055473534", 435_131, "adeeabf20ea2a8eb66ced87b78434400"),
)

# Radiologists' labels, published by Google. Its server may ask for a registration, which needs a browser.
_GOOGLE = "https://storage.googleapis.com/gcs-public-data--healthcare-nih-chest-xray-labels"
_GOOGLE_PAGE = "https://cloud.google.com/healthcare-api/docs/resources/public-datasets/nih-chest#additional_labels"
_ALL, _FOUR = "all_findings_expert_labels", "four_findings_expert_labels"
_EXPERT_LABELS = (
    (
        f"{_ALL}_test_individual_readers",
        f"{_ALL}/{_ALL}_test_individual_readers",
        334_530,
        "c3a0b18ceba228efe6b9ac71f810ade0",
    ),
    (f"{_ALL}_test_labels", f"{_ALL}/{_ALL}_test_labels", 59_332, "c6f15878b2570e1ecf2e4910bde143c0"),
    (f"{_FOUR}_individual_readers", f"{_FOUR}/individual_readers", 679_640, "c825fb521a43a82b9ca5020e3030c74b"),
    (f"{_FOUR}_test_labels", f"{_FOUR}/test_labels", 178_236, "0ce9c354fc968cde70080bfd8a09d236"),
    (f"{_FOUR}_validation_labels", f"{_FOUR}/validation_labels", 209_269, "eb4f98f589b12750f021fe5e6ff10af1"),
)
EXPERT_LABELS = tuple(
    Source(f"{name}.csv", f"{_GOOGLE}/{path}.csv", size, md5, _GOOGLE_PAGE) for name, path, size, md5 in _EXPERT_LABELS
)
