"""Trained networks as one ONNX file, for systems that have neither PyTorch nor this project."""
