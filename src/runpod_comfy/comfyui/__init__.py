"""A ComfyUI server: its HTTP and websocket API (``client``) and batches run through it (``runner``)."""
