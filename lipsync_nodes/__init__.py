"""ComfyUI nodes over ``lipsync_core``: each converts, calls, converts back."""
