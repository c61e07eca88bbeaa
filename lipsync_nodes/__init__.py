"""ComfyUI nodes: each converts its inputs, calls ``lipsync_core`` and converts the result."""
