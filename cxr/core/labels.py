"""The 15 classes of NIH ChestX-ray14: 14 findings and No Finding, in the order that every file keeps."""

NO_FINDING = "No Finding"
FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
CLASSES = tuple(sorted((*FINDINGS, NO_FINDING)))

# A label that nobody knows, in arrays of labels, uint8 [images, 15]. NIH has none.
UNKNOWN = 255
