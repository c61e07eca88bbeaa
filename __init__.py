"""Where ComfyUI enters. Nothing is imported before it asks, because test runners import this file
too."""

WEB_DIRECTORY = "./lipsync_nodes/web"


async def comfy_entrypoint():
    """The node pack; ComfyUI calls this once. Whatever fails is logged whole, because the host logs
    one line of it."""
    import logging

    try:
        from .lipsync_nodes.extension import LipSyncExtension
    except Exception:
        logging.getLogger("lipsync.nodes").exception("the LipSync nodes cannot be loaded")
        raise
    return LipSyncExtension()
