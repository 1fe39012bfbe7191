"""Weights that anybody can make without a file: each tensor comes from a random stream named after its own key.

Two networks with the same names and shapes get the same weights, so their results can be compared. They mean nothing:
they prove that two implementations compute the same function, not that it tracks well.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

#: (pattern of the key, gain, offset): value = rule * gain + offset. The first match counts.
Profile = Sequence[tuple[str, float, Any]]

#: Tuned so that similarities, gates and probabilities stay in their middle range, where differences show.
XMEM: Profile = [
    (r"key_proj\.key_proj\.weight", 2.0, 0.0),
    (r"key_proj\.e_proj\.weight", 2.0, 0.0),
    (r"key_proj\.d_proj\.weight", 2.0, 0.0),
    (r"value_encoder\.layer3\.1\.bn2\.weight", 4.0, 0.0),
    (r"value_encoder\.layer3\.0\.downsample\.1\.weight", 4.0, 0.0),
    (r"value_encoder\.fuser\.block2\.conv2\.weight", 2.0, 0.0),
    (r"decoder\.fuser\.block2\.conv2\.weight", 3.0, 0.0),
    (r"decoder\.up_.*\.skip_conv\.weight", 0.7, 0.0),
    (r"decoder\.pred\.weight", 2.5, 0.0),
    (r"decoder\.pred\.bias", 1.0, -0.5),
]
SAM: Profile = [
    (r"image_encoder\.pos_embed", 350.0, 0.0),
    (r"image_encoder\..*\.qkv\.weight", 1.5, 0.0),
    (r"prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix", 11.3, 0.0),
    (r"prompt_encoder\..*_embed(dings\.\d)?\.weight", 8.0, 0.0),
    (r"mask_decoder\.(iou_token|mask_tokens)\.weight", 8.0, 0.0),
    (r"mask_decoder\.output_hypernetworks_mlps\.\d\.layers\.2\.weight", 4.0, 0.0),
]
#: Flows of a few pixels, outputs that are not saturated. SPyNet's two buffers have their real values.
E2FGVI: Profile = [
    (r"update_spynet\.mean", 0.0, np.reshape((0.485, 0.456, 0.406), (1, 3, 1, 1))),
    (r"update_spynet\.std", 0.0, np.reshape((0.229, 0.224, 0.225), (1, 3, 1, 1))),
    (r"update_spynet\.basic_module\.\d\.basic_module\.[0-3]\.conv\.weight", 1.7, 0.0),
    (r"update_spynet\.basic_module\.[012]\.basic_module\.4\.conv\.weight", 0.4, 0.0),
    (r"update_spynet\.basic_module\.[3]\.basic_module\.4\.conv\.weight", 0.8, 0.0),
    (r"update_spynet\.basic_module\.[45]\.basic_module\.4\.conv\.weight", 1.1, 0.0),
    (r"encoder\.layers\.\d+\.weight", 1.5, 0.0),
    (r"feat_prop_module\.deform_align\.\w+\.weight", 1.5, 0.0),
    (r"feat_prop_module\.deform_align\.\w+\.conv_offset\.6\.weight", 0.5, 0.0),
    (r"feat_prop_module\.deform_align\.\w+\.conv_offset\.\d\.weight", 1.4, 0.0),
    (r"feat_prop_module\.backbone\.\w+\.\d\.weight", 1.1, 0.0),
    (r"feat_prop_module\.fusion\.weight", 1.2, 0.0),
    (r"ss\.embedding\.weight", 1.0, 0.0),
    (r"sc\.embedding\.weight", 0.4, 0.0),
    (r"transformer\.\d\.pool_layers\.0\.weight", 2.0, 0.02),
    (r"transformer\.\d\.attn\.qkv\.weight", 1.5, 0.0),
    (r"transformer\.\d\.attn\.proj\.weight", 0.8, 0.0),
    (r"transformer\.\d\.mlp\.conv.*\.weight", 1.8, 0.0),
    (r"decoder\.(0\.conv|2|4\.conv)\.weight", 1.2, 0.0),
    (r"decoder\.6\.weight", 0.45, 0.0),
]


def surrounding_cells(window: tuple[int, int] = (5, 9)) -> npt.NDArray[np.int64]:
    """E2FGVI's buffer of cells: of a window shifted to each corner by half its size, those outside the window."""
    y, x = np.mgrid[: window[0], : window[1]]
    half_y, half_x = window[0] // 2, window[1] // 2
    up, left, down, right = y >= window[0] - half_y, x >= window[1] - half_x, y < half_y, x < half_x
    return np.flatnonzero(np.stack([up | left, up | right, down | left, down | right])).astype(np.int64)


def unit_stream(key: str, count: int) -> npt.NDArray[np.float64]:
    """``count`` (> 0) numbers of zero mean and unit variance, from PCG64's raw stream: it never changes with numpy."""
    raw = np.atleast_1d(np.random.PCG64(zlib.crc32(key.encode())).random_raw(count))
    return (2 * (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53 - 1) * np.sqrt(3)


def tensor_for(key: str, shape: tuple[int, ...], profile: Profile) -> npt.NDArray[Any]:
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if key.endswith("valid_ind_rolled"):
        return surrounding_cells()
    u = unit_stream(key, int(np.prod(shape, dtype=np.int64))).reshape(shape)
    if key.endswith("running_mean"):
        value = 0.1 * u
    elif key.endswith("running_var"):
        value = 1 + 0.2 * np.abs(u)
    elif len(shape) <= 1:
        value = 1 + 0.1 * u if key.endswith("weight") else 0.05 * u
    else:
        value = u * np.sqrt(1 / np.prod(shape[1:]))
    for pattern, gain, offset in profile:
        if re.fullmatch(pattern, key):
            value = value * gain + offset
            break
    return np.asarray(value).astype(np.float32)


def fill(module: nn.Module, profile: Profile) -> None:
    """Fill parameters and buffers in place."""
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            tensor.copy_(torch.from_numpy(tensor_for(key, tuple(tensor.shape), profile)))


def digest(state: Mapping[str, torch.Tensor]) -> str:
    """sha256 over keys in sorted order and little-endian tensor bytes."""
    h = hashlib.sha256()
    for key in sorted(state):
        array = np.ascontiguousarray(state[key].numpy())
        h.update(key.encode())
        h.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return h.hexdigest()
