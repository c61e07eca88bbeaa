"""Entry point for ComfyUI. Imports nothing before ComfyUI calls it: test runners import it too."""

WEB_DIRECTORY = "./lipsync_nodes/web"


async def comfy_entrypoint():
    """Return the node pack. Errors are logged with traceback, because ComfyUI logs one line."""
    import logging

    try:
        from .lipsync_nodes.extension import LipSyncExtension
    except Exception:
        logging.getLogger("lipsync.nodes").exception("the LipSync nodes cannot be loaded")
        raise
    return LipSyncExtension()
