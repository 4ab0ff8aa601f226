"""Export of trained networks to one ONNX file, for systems without PyTorch and without this project."""
