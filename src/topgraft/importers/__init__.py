"""Making backbones from the built-in weights, timm or an ONNX file, in f32 or INT8, once each, then kept."""
