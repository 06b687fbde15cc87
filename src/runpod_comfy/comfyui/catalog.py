"""What a ComfyUI says of its node classes, asked once for each class."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from runpod_comfy.errors import RunpodComfyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runpod_comfy.comfyui.client import ComfyUIClient

__all__ = ["NodeCatalog"]

logger = logging.getLogger(__name__)


class NodeCatalog:
    """The node classes of one ComfyUI, as far as they were asked for."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    async def of(self, client: ComfyUIClient, class_types: Iterable[str]) -> Mapping[str, Any]:
        """Return what is known of all classes after asking for these; a class that does not exist is not in it."""
        new = [each for each in dict.fromkeys(class_types) if each not in self._known]
        try:
            for told in await asyncio.gather(*(client.object_info(each) for each in new)):
                self._known.update(told)
        except RunpodComfyError as exc:
            # It serves what files show of the workflow, for which no job shall fail.
            logger.info("%s does not describe its nodes: %s", client.origin, exc)
        return self._known
