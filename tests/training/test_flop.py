"""FLOP by hand."""

import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from snowmelt.model.networks import UNetConfig, build
from snowmelt.training.flop import flop_per_image

CPU = torch.device("cpu")


def test_a_convolution_is_two_operations_a_weight_and_pixel():
    conv = torch.nn.Conv2d(3, 5, 3, padding=1)
    assert flop_per_image(conv, (3, 8, 8), CPU) == 2 * 8 * 8 * 3 * 5 * 9


def test_attention_is_two_products_of_tokens_with_tokens():
    assert flop_per_image(lambda x: F.scaled_dot_product_attention(x, x, x), (2, 7, 4), CPU) == 2 * 2 * (2 * 7 * 7 * 4)


def test_what_is_computed_once_for_all_images_is_not_counted():
    weight = torch.ones(4, 4)
    assert flop_per_image(lambda x: x @ (weight @ weight), (3, 4), CPU) == 2 * 3 * 4 * 4


def test_it_is_pytorchs_count_of_a_network():
    network = build(UNetConfig(in_channels=1, out_channels=1, channels=16)).eval()

    def forward(x):
        return network(x, torch.zeros(len(x)))

    totals = []
    for images in (1, 2):
        with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            forward(torch.zeros(images, 1, 16, 16))
        totals.append(counter.get_total_flops())
    assert flop_per_image(forward, (1, 16, 16), CPU) == totals[1] - totals[0] > 0
