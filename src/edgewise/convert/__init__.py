"""L6: makes new weight files: GGUF and safetensors, in any format we can write, from models or from nothing."""
