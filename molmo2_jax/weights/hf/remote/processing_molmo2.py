"""Molmo2's processor for vLLM, which transformers up to 5.19 does not have. This file is written with an export.

    "<|image|>How many?", an image   ->   input_ids             int64[1, n]            BOS, visual tokens, text
                                          pixel_values          float32[c, 729, 588]   crops, from -1 to 1
                                          image_token_pooling   int64[g, 4]            patches of a token, in its image
                                          image_grids           int64[images, 4]       tokens: overview, then crops
                                          image_num_crops       int64[images]

Crops and pooling are those of training: crops_molmo2.py, pooling_molmo2.py and
token_counts_molmo2.py are its code. A call takes one prompt, as vLLM sends it.
"""

import contextlib
import struct

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers import BatchFeature, ProcessorMixin
from transformers.image_processing_base import ImageProcessingMixin
from transformers.processing_utils import ImagesKwargs
from transformers.video_processing_utils import BaseVideoProcessor

from .crops_molmo2 import PATCHES_PER_SIDE, choose_crop_grid, frame_crop, image_crops
from .pooling_molmo2 import FRAME_POOL, IMAGE_POOL, frame_pooling, image_pooling
from .token_counts_molmo2 import TOKENS_PER_FRAME, token_grids

IMAGE, VIDEO = "<|image|>", "<|video|>"


def _normalise(patches: np.ndarray) -> torch.Tensor:
    """uint8 -> float32 from -1 to 1, the input of the ViT."""
    return torch.from_numpy(patches.astype(np.float32) / np.float32(127.5) - 1)


def _upright_rgb(image) -> np.ndarray:
    """uint8[H, W, 3] of a PIL image, rotated as its EXIF orientation says, or of such an array."""
    if isinstance(image, Image.Image):
        if image.mode.startswith(("I", "F")):  # 16 or 32 bits per pixel, which Pillow would clip to white
            raise ValueError(f"an image has more than 8 bits per pixel (mode {image.mode})")
        with contextlib.suppress(OSError, ValueError, SyntaxError, EOFError, struct.error):  # damaged EXIF
            image = ImageOps.exif_transpose(image)
        image = image.convert("RGB")
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3:
        raise ValueError(f"an image is a PIL image or uint8[H, W, 3], not {pixels.dtype}{list(pixels.shape)}")
    return pixels


def _flatten(nested) -> list:
    """One item, a list, or a list of lists -> a list; None -> []."""
    if nested is None:
        return []
    items = nested if isinstance(nested, list | tuple) else [nested]
    return [x for item in items for x in (item if isinstance(item, list | tuple) else [item])]


class Molmo2ImagesKwargs(ImagesKwargs, total=False):
    """Options of a server or a request."""

    max_crops: int


class Molmo2ImageProcessor(ImageProcessingMixin):
    """Images as an overview and a grid of crops. Its attributes are the keys of preprocessor_config.json."""

    valid_kwargs = Molmo2ImagesKwargs
    model_input_names = ("pixel_values", "image_token_pooling", "image_grids", "image_num_crops")

    def __call__(self, images, max_crops=None) -> BatchFeature:
        """The tensors of a list of images, as in the module's docstring."""
        arrays = [_upright_rgb(image) for image in images]
        limit = self.max_crops if max_crops is None else max_crops
        crop_grids = [choose_crop_grid(*pixels.shape[:2], limit) for pixels in arrays]
        crops = [image_crops(*pair) for pair in zip(arrays, crop_grids, strict=True)]
        pooling = np.concatenate([image_pooling(crop_grid) for crop_grid in crop_grids])[:, : IMAGE_POOL**2]
        data = {
            "pixel_values": _normalise(np.concatenate(crops)),
            "image_token_pooling": torch.from_numpy(pooling).long(),
            "image_grids": torch.tensor([sum(token_grids(crop_grid), ()) for crop_grid in crop_grids]),
            "image_num_crops": torch.tensor([len(c) for c in crops]),
        }
        return BatchFeature(data)


class Molmo2VideoProcessor(BaseVideoProcessor):
    """Frames, each as one crop. Its attributes are the keys of video_preprocessor_config.json."""

    model_input_names = ("pixel_values_videos", "video_token_pooling", "video_grids")

    def __call__(self, videos) -> BatchFeature:
        """float32[frames, 729, 588], int64[tokens, 9] (patches, counted within a video) and int64[videos, 3].

        Args:
          videos: clips, each uint8[T, H, W, 3].
        """
        clips = [[frame_crop(_upright_rgb(frame)) for frame in clip] for clip in videos]
        side = PATCHES_PER_SIDE // FRAME_POOL
        data = {
            "pixel_values_videos": _normalise(np.stack([crop for clip in clips for crop in clip])),
            "video_token_pooling": torch.from_numpy(np.concatenate([frame_pooling(len(c)) for c in clips])).long(),
            "video_grids": torch.tensor([(len(c), side, side) for c in clips]),
        }
        return BatchFeature(data)

    def sample(self, frames: int, fps: float) -> np.ndarray:
        """Indices of frames to show: `max_fps` per second and the last; at most `num_frames`, then spread evenly.

        Frames of a file with fewer than `max_fps` per second are repeated, as in vLLM.
        """
        if self.frame_sample_mode != "uniform_last_frame":
            raise ValueError(f"frame_sample_mode is {self.frame_sample_mode!r}, not 'uniform_last_frame'")
        last = frames - 1
        if frames <= 2:
            return np.arange(frames)
        if frames / fps > (self.num_frames - 1) / self.max_fps:
            return np.linspace(0, last, min(self.num_frames, frames)).astype(int)
        chosen = np.round(np.arange(0.0, last, fps / self.max_fps)).astype(int)
        return chosen if chosen[-1] == last else np.append(chosen, last)


class Molmo2Processor(ProcessorMixin):
    """Prompts with their media. The arguments after `chat_template` are keys of processor_config.json."""

    def __init__(
        self,
        image_processor=None,
        video_processor=None,
        tokenizer=None,
        chat_template=None,
        image_use_col_tokens=True,
        use_single_crop_col_tokens=False,
        use_single_crop_start_token=True,
        video_use_col_tokens=False,
        use_frame_special_tokens=True,
    ):
        super().__init__(image_processor, video_processor, tokenizer, chat_template=chat_template)
        layout = (image_use_col_tokens, use_single_crop_col_tokens, use_single_crop_start_token, video_use_col_tokens)
        if layout != (True, False, True, False):
            raise ValueError(
                "processor_config.json: image_use_col_tokens, use_single_crop_col_tokens, use_single_crop_start_token "
                f"and video_use_col_tokens are {layout}; only (True, False, True, False) is possible here"
            )
        self.image_use_col_tokens = image_use_col_tokens
        self.use_single_crop_col_tokens = use_single_crop_col_tokens
        self.use_single_crop_start_token = use_single_crop_start_token
        self.video_use_col_tokens = video_use_col_tokens
        self.use_frame_special_tokens = use_frame_special_tokens

    def __call__(
        self,
        text=None,
        images=None,
        videos=None,
        *,
        video_metadata=None,
        do_sample_frames=False,
        max_crops=None,
        truncation=False,
        return_tensors="pt",
    ) -> BatchFeature:
        """The tensors of the module's docstring, and those of videos.

        Args:
          text: one prompt, with one <|image|> or <|video|> for each medium, in their order.
          images: PIL images or uint8[H, W, 3].
          videos: clips, uint8[T, H, W, 3] each.
          video_metadata: for each clip, `fps` of its file and `frames_indices`, the index of each frame in the file.
          do_sample_frames: whether to sample frames from the clips; otherwise all are shown.
          max_crops: of an image; default: that of preprocessor_config.json. No other value may differ from the files,
            because vLLM computes token counts from them.

        Raises:
          ValueError: placeholders and media do not match, images or metadata of an unsupported kind, or a clip whose
            frames are not those of its metadata.
        """
        if return_tensors != "pt" or truncation:
            raise ValueError(f"{return_tensors=}, {truncation=}: only 'pt' and False are possible here")
        if isinstance(text, list | tuple):
            (text,) = text
        text, images, videos = text or "", _flatten(images), _flatten(videos)
        data, grids, times = {}, [], []
        if images:
            data |= self.image_processor(images, max_crops=max_crops)
            grids = data["image_grids"].tolist()
        if videos:
            pairs = zip(videos, _flatten(video_metadata), strict=True)
            clips, times = zip(*(self._shown_frames(*pair, do_sample_frames) for pair in pairs), strict=True)
            data |= self.video_processor(clips)
        text = self._replace_placeholders(text, IMAGE, [self._image_tokens(*grid) for grid in grids])
        text = self._replace_placeholders(text, VIDEO, [self._video_tokens(clip_times) for clip_times in times])
        ids, tok = self.tokenizer.encode(text, add_special_tokens=False), self.tokenizer
        bos = tok.eos_token_id if tok.bos_token_id is None else tok.bos_token_id
        ids = ids if ids[:1] == [bos] else [bos, *ids]
        mask = torch.ones(1, len(ids), dtype=torch.int64)
        return BatchFeature({"input_ids": torch.tensor([ids]), "attention_mask": mask} | data)

    def _shown_frames(self, clip, metadata, sample: bool) -> tuple[list, list[float]]:
        """The frames of a clip that are shown, and their times in the file, s."""
        if metadata is None or metadata.fps is None or (metadata.frames_indices is None and not sample):
            raise ValueError(f"a clip needs metadata with fps and frames_indices, not {metadata}")
        if sample and len(clip) != metadata.total_num_frames:
            raise ValueError(
                f"to sample frames, the clip needs all {metadata.total_num_frames} of its file; it has {len(clip)}"
            )
        if not sample and len(clip) != len(metadata.frames_indices):
            raise ValueError(f"a clip has {len(clip)} frames, but frames_indices for {len(metadata.frames_indices)}")
        chosen = self.video_processor.sample(len(clip), metadata.fps) if sample else metadata.frames_indices
        frames = [clip[i] for i in chosen] if sample else list(clip)
        return frames, [frame / metadata.fps for frame in chosen]

    @staticmethod
    def _replace_placeholders(text: str, placeholder: str, tokens: list[str]) -> str:
        parts = text.split(placeholder)
        if len(parts) != len(tokens) + 1:
            raise ValueError(f"{len(parts) - 1} {placeholder} in the text for {len(tokens)} of them")
        return parts[0] + "".join(a + b for a, b in zip(tokens, parts[1:], strict=True))

    @staticmethod
    def _image_tokens(low_rows: int, low_columns: int, rows: int, columns: int) -> str:
        low = "<im_patch>" * (low_rows * low_columns)
        return f"<low_res_im_start>{low}<im_end><im_start>{('<im_patch>' * columns + '<im_col>') * rows}<im_end>"

    def _video_tokens(self, times: list[float]) -> str:
        start, end = ("<frame_start>", "<frame_end>") if self.use_frame_special_tokens else ("<im_start>", "<im_end>")
        patches = "<im_patch>" * TOKENS_PER_FRAME
        return " ".join(f"{time:.1f} {start}{patches}{end}" for time in times)
