"""SAM on one image: encode it once, then decode prompts as often as wanted.

The results are those of the ``segment-anything`` package; the way there is shorter. Coordinates are the package's:
(x, y) in pixels of the frame, where whole numbers are pixel centres.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from segment_anything.modeling import Sam
from torch import Tensor

from tam_backend.prompts import Mask
from tam_backend.segmenters.sam.encoder import encode
from tam_backend.segmenters.sam.split_linear import split_layers
from tam_backend.video.base import Frame

Floats = npt.NDArray[np.float32]

#: Mean and deviation of ImageNet's pixels, 0 to 255.
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

#: Low-res logits have a quarter of the image size, and so has the encoder's input after two upsamplings.
LOW_RES_STRIDE = 4

#: Logit of a mask prompt made from a mask. SAM was trained with its own earlier logits, which are about so large.
SURE = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """What SAM knows of an image, at half the size of float32: codes are 1xCxhxw int16, scale is 1xCx1x1 float32.

    Their product differs from the original by less than 2e-5 of the largest value in a channel.
    frame: height and width of the frame.
    """

    codes: npt.NDArray[np.int16]
    scale: Floats
    frame: tuple[int, int]

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + self.scale.nbytes

    @classmethod
    def pack(cls, features: Tensor, frame: tuple[int, int]) -> Embedding:
        """features: 1xCxhxw."""
        features = features.float().contiguous()
        scale = features.abs().amax((2, 3), keepdim=True).clamp_(min=1e-12) / 32767
        codes = (features / scale).round_().to(torch.int16)
        return cls(codes.cpu().numpy(), scale.cpu().numpy(), frame)

    def unpack(self, device: torch.device) -> Tensor:
        """1xCxhxw float32."""
        return torch.from_numpy(self.codes).to(device).float() * torch.from_numpy(self.scale).to(device)


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Masks that answer the same prompts. low_res: Cxlxl logits, l being a quarter of the encoder's image size;
    iou: C, the network's own guess at each mask's intersection over union with the right one."""

    low_res: Floats
    iou: Floats

    @property
    def nbytes(self) -> int:
        return self.low_res.nbytes + self.iou.nbytes


class Predictor:
    """Stateless beside the weights; may be used from several threads."""

    def __init__(self, sam: Sam, amp: bool = False) -> None:
        """Takes ``sam`` over, and on CPU may change the form of its weights. amp: mixed precision in the encoder; only
        on CUDA."""
        self._sam = sam.eval().requires_grad_(False)
        if self.device.type == "cpu":
            split_layers(sam.image_encoder)
        self._amp = amp and self.device.type == "cuda"
        self._places: Tensor = sam.prompt_encoder.get_dense_pe()  # the same for every image

    @property
    def device(self) -> torch.device:
        return self._sam.prompt_encoder.no_mask_embed.weight.device

    @property
    def image_size(self) -> int:
        """Pixels of the longest side of a frame as the encoder sees it."""
        return int(self._sam.image_encoder.img_size)

    def scale(self, frame: tuple[int, int]) -> float:
        """Pixels of the encoder's image per pixel of the frame."""
        return self.image_size / max(frame)

    def input_shape(self, frame: tuple[int, int]) -> tuple[int, int]:
        """Height and width of a frame as the encoder sees it, without padding."""
        height, width = (max(1, int(side * self.scale(frame) + 0.5)) for side in frame)
        return height, width

    @torch.no_grad()
    def encode(self, frame: Frame) -> Embedding:
        """frame: HxWx3 uint8 RGB."""
        shape = (int(frame.shape[0]), int(frame.shape[1]))
        height, width = self.input_shape(shape)
        resized = Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(resized)).to(self.device).permute(2, 0, 1).float()
        mean, deviation = (torch.tensor(v, device=self.device)[:, None, None] for v in (MEAN, DEVIATION))
        pixels = pixels.sub_(mean).div_(deviation)
        padding = (0, self.image_size - pixels.shape[2], 0, self.image_size - pixels.shape[1])
        with self._autocast():
            features = encode(self._sam.image_encoder, F.pad(pixels, padding)[None])
        return Embedding.pack(features, shape)

    @torch.no_grad()
    def decode(
        self,
        embedding: Embedding,
        points: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        box: npt.ArrayLike | None = None,
        low_res: npt.ArrayLike | None = None,
        several: bool = False,
    ) -> Candidates:
        """Masks for these prompts.

        points: Nx2, labels: N, 1 for on the object and 0 for not on it. box: left, top, right, bottom. low_res: lxl
        logits of an earlier answer. several: three candidates from part to whole, for prompts that are ambiguous, such
        as one click; else a single one.
        """
        height, width = self.input_shape(embedding.frame)
        scale = np.array([width / embedding.frame[1], height / embedding.frame[0]])
        given_points = given_box = given_mask = None
        if points is not None:
            places = np.asarray(points, np.float64) * scale
            given_points = (self._tensor(places)[None], self._tensor(labels)[None])
        if box is not None:
            given_box = self._tensor(np.asarray(box, np.float64) * np.tile(scale, 2))[None]
        if low_res is not None:
            given_mask = self._tensor(low_res)[None, None]
        sparse, dense = self._sam.prompt_encoder(points=given_points, boxes=given_box, masks=given_mask)
        masks, iou = self._sam.mask_decoder(
            image_embeddings=embedding.unpack(self.device),
            image_pe=self._places,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=several,
        )
        return Candidates(masks[0].cpu().numpy(), iou[0].cpu().numpy())

    @torch.no_grad()
    def enlarge(self, low_res: Floats, frame: tuple[int, int]) -> Floats:
        """Cxlxl logits -> CxHxW logits at the size of the frame, by two bilinear steps as in the package.

        Padding is cut off before the first step rather than after it, but for the one row and column that the last
        pixels are mixed from.
        """
        height, width = self.input_shape(frame)
        rows, columns = (min(low_res.shape[1], -(-side // LOW_RES_STRIDE) + 1) for side in (height, width))
        part = self._tensor(low_res[:, :rows, :columns])[None]
        large = F.interpolate(part, scale_factor=LOW_RES_STRIDE, mode="bilinear", align_corners=False)
        large = F.interpolate(large[..., :height, :width], frame, mode="bilinear", align_corners=False)
        return large[0].cpu().numpy()

    def mask_prompt(self, mask: Mask) -> Floats:
        """HxW bool -> lxl logits for ``decode``, as sure as SAM's own are."""
        return self.logits_prompt(np.where(mask, SURE, -SURE).astype(np.float32))

    def logits_prompt(self, logits: Floats) -> Floats:
        """HxW logits -> lxl for ``decode``, averaged over areas; what is beyond the frame is background."""
        height, width = (-(-side // LOW_RES_STRIDE) for side in self.input_shape((logits.shape[0], logits.shape[1])))
        size = self.image_size // LOW_RES_STRIDE
        prompt = np.full((size, size), -SURE, np.float32)
        prompt[:height, :width] = cv2.resize(logits, (width, height), interpolation=cv2.INTER_AREA)
        return prompt

    def _tensor(self, values: npt.ArrayLike | None) -> Tensor:
        return torch.as_tensor(np.asarray(values, np.float32), device=self.device)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast("cuda", torch.float16) if self._amp else contextlib.nullcontext()
