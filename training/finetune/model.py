"""The model in training: transformers' own, fed as the engine feeds it, with an adapter or with all its weights."""

from __future__ import annotations

from typing import Any, cast

import torch
from florence2_server.engine.checkpoint.loading import Checkpoint
from florence2_server.engine.model.normalization import Normalization
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.nn import Parameter
from transformers import Florence2ForConditionalGeneration, GenerationConfig
from transformers.modeling_outputs import BaseModelOutput

from training.finetune.errors import SettingError
from training.finetune.settings import Settings

_VISION = ("vision_tower", "multi_modal_projector")
_HEAD = "lm_head"


class TrainedModel(Florence2ForConditionalGeneration):
    """transformers' model with the engine's inputs: an image, and the prompt's tokens without image tokens.

    The original layout has no image token, and with placeholder tokens its vocabulary, and an adapter of the output
    layer, would be one token longer than the base's.

    Attributes:
        normalization: of 8-bit pixels.
        vision_is_frozen: whether the vision tower stays as it is. It then runs as in inference, without drop path.
    """

    normalization: Normalization
    vision_is_frozen: bool

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> TrainedModel:
        """Turn a loaded checkpoint's model into one; `restored` turns it back."""
        model = checkpoint.model
        model.__class__ = cls
        model.normalization = Normalization.of(checkpoint.image_processor)
        model.vision_is_frozen = False
        model.config.pad_token_id = checkpoint.tokenizer.pad_token_id  # Trainer looks for it there
        trained: TrainedModel = model
        return trained

    def train(self, mode: bool = True) -> TrainedModel:
        """Set the mode; a frozen vision tower stays in evaluation mode."""
        super().train(mode)
        if self.vision_is_frozen:
            for name in _VISION:
                getattr(self.model, name).eval()
        return self

    def embed_images(self, pixels: Tensor) -> Tensor:
        """The image tokens, (images, image tokens, d_model), of (images, 3, height, width) 8-bit pixels."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.vision_is_frozen):
            embeddings: Tensor = self.get_image_features(self.normalization(pixels)).pooler_output
        return embeddings

    def forward(  # noqa: D417 - the others are transformers'
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixels: Tensor | None = None,
        image_embeddings: Tensor | None = None,
        encoder_outputs: Any = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """The loss, or the logits of a decode step.

        Args:
            input_ids: (examples, tokens) of the prompts; None in a decode step, which has `encoder_outputs`.
            attention_mask: (examples, image tokens + tokens).
            pixels: (examples, 3, height, width) 8-bit.
            image_embeddings: what `embed_images` makes of them, instead of `pixels`.
            labels: (examples, answer tokens), padded with -100.
        """
        embeddings = None
        if encoder_outputs is None:
            embeddings = self._joined(input_ids, pixels, image_embeddings)
        return super().forward(
            inputs_embeds=embeddings,
            attention_mask=attention_mask,
            encoder_outputs=encoder_outputs,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            labels=labels,
            **options,
        )

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        pixels: Tensor | None = None,
        image_embeddings: Tensor | None = None,
        labels: Tensor | None = None,  # noqa: ARG002 - Trainer passes whole batches
        **options: Any,
    ) -> Any:
        """Generate answers; the first arguments are those of `forward`, the rest those of `generate()`."""
        joined = self._joined(input_ids, pixels, image_embeddings)
        encoder: Any = self.model.language_model.encoder
        encoded = encoder(inputs_embeds=joined, attention_mask=attention_mask).last_hidden_state
        outputs = BaseModelOutput(last_hidden_state=encoded)
        search: Any = super()
        return search.generate(encoder_outputs=outputs, attention_mask=attention_mask, **options)

    def _joined(self, input_ids: Tensor | None, pixels: Tensor | None, image_embeddings: Tensor | None) -> Tensor:
        """The encoder's input: the image tokens, then the prompt's."""
        if image_embeddings is None:
            assert pixels is not None, "an example has pixels or their embeddings"
            image_embeddings = self.embed_images(pixels)
        embedded = self.get_input_embeddings()(input_ids)
        return torch.cat([image_embeddings.to(embedded.dtype), embedded], dim=1)


def prepare_model(checkpoint: Checkpoint, settings: Settings) -> TrainedModel | PeftModel:
    """The model to train, with its adapter if the method is lora.

    Raises:
        SettingError: no layer of the model has one of the names in `targets`.
    """
    model = TrainedModel.of(checkpoint)
    model.generation_config = evaluation_config(checkpoint, settings)
    if settings.method == "full":
        if settings.freeze_vision:
            for name in _VISION:
                getattr(model.model, name).requires_grad_(requires_grad=False)
        model.vision_is_frozen = settings.freeze_vision
        return model
    # For the checkpoints in between peft looks for the base's config, and on the hub if this is not a folder.
    model.name_or_path = str(checkpoint.files.folder)
    try:
        adapted = get_peft_model(model, lora_config(settings))
    except ValueError as error:
        if "target" not in str(error).lower():
            raise
        raise SettingError("targets", settings.targets, "names of layers (see the README)") from None
    model.vision_is_frozen = not any(
        weight.requires_grad for name in _VISION for weight in getattr(model.model, name).parameters()
    )
    assert isinstance(adapted, PeftModel)
    return adapted


def lora_config(settings: Settings) -> LoraConfig:
    """The adapter's configuration for the settings."""
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_rslora=settings.rslora,
        init_lora_weights="gaussian" if settings.initialization == "gaussian" else True,
        target_modules=list(settings.targets),
        exclude_modules=rf".*\b({'|'.join(_VISION)})\b.*" if settings.freeze_vision else None,
    )


def evaluation_config(checkpoint: Checkpoint, settings: Settings) -> GenerationConfig:
    """The checkpoint's own generation config, with the evaluation's number of beams and length."""
    own: dict[str, Any] = checkpoint.generation_config.to_diff_dict()
    early_stopping = own.get("early_stopping", False) if settings.beams > 1 else False
    positions = checkpoint.model.config.text_config.max_position_embeddings
    changed = {
        "num_beams": settings.beams,
        "early_stopping": early_stopping,
        # `max_length` counts the decoder start token. Next to it Trainer expects no `max_new_tokens`.
        "max_length": min(settings.longest_answer + 1, positions),
        "max_new_tokens": None,
        "pad_token_id": checkpoint.tokenizer.pad_token_id,
        "do_sample": False,
    }
    make: Any = GenerationConfig
    config: GenerationConfig = make(**{**own, **changed})
    return config


def base_model(model: TrainedModel | PeftModel) -> TrainedModel:
    """The model without its adapter's wrapper."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(base, TrainedModel)
    return base


def merged(model: TrainedModel | PeftModel) -> Any:
    """The plain model, with the adapter merged into its weights. The argument cannot be used any further."""
    is_adapted, plain = isinstance(model, PeftModel), cast(Any, model)
    if is_adapted:
        _untie_adapted_head(base_model(model))
        plain = plain.merge_and_unload()
    plain.__class__ = Florence2ForConditionalGeneration
    return plain.float().eval()


def _untie_adapted_head(model: Any) -> None:
    """Give an adapted output layer weights of its own.

    Otherwise the adapter would be merged into the token embeddings too, which are the same weights.
    """
    head = model.lm_head
    base = getattr(head, "base_layer", None)
    if base is not None and base.weight is model.get_input_embeddings().weight:
        base.weight = Parameter(base.weight.detach().clone())
        model.config.tie_word_embeddings = False
