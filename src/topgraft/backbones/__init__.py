"""Where graphs come from: the built-in weights, timm, a hub, a folder, any ONNX file."""
