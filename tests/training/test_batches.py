import random

import numpy as np
import torch

from training.demo.answers import make_example
from training.demo.batches import Batches, Sampling, Stage, image_pixels, prompt_ids
from training.demo.model import IMAGE_TOKENS
from training.demo.sampling import Limits, sample_scene
from training.demo.scenes import draw

FAST = Sampling(scenes=4, examples=3, groups=2)


def batches(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    return Batches(str(tmp_path), FAST, [Stage(0, Limits(1, 1)), Stage(10, Limits(3, 2))])


def test_images_are_preprocessed_exactly_as_at_inference(processor):
    for seed in range(20):
        image = draw(sample_scene(seed))
        expected = processor.image_processor(image, return_tensors="np")["pixel_values"][0]
        assert np.array_equal(image_pixels(image, processor), expected)


def test_prompts_are_those_that_the_processor_builds(processor):
    scene = sample_scene(1)
    for task in ("<OD>", "<REGION_TO_CATEGORY>", "<CAPTION_TO_PHRASE_GROUNDING>"):
        example = make_example(scene, task, random.Random(0))
        inputs = processor(text=task + example.text, images=draw(scene))
        assert inputs["input_ids"][0][IMAGE_TOKENS:] == prompt_ids(example, processor)


def test_an_index_always_yields_the_same_batch(processor, tmp_path):
    first, second = (batches(processor, tmp_path)[3] for _ in range(2))
    assert torch.equal(first.pixel_values, second.pixel_values)
    for a, b in zip(first.groups, second.groups, strict=True):
        assert torch.equal(a.label_ids, b.label_ids)


def test_a_batch_holds_all_examples_about_its_images(processor, tmp_path):
    batch = batches(processor, tmp_path)[12]
    images = torch.cat([group.images for group in batch.groups])
    assert batch.pixel_values.shape == (4, 3, 128, 128)
    assert images.bincount().tolist() == [FAST.examples] * FAST.scenes
