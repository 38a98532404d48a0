"""The networks of the papers, as float models in either Keras."""

from wrpn_tf.applications.cifar_resnet import (
    CIFARResNet,
    ResNet8,
    ResNet14,
    ResNet20,
    ResNet32,
    ResNet44,
    ResNet56,
    ResNet101,
)
from wrpn_tf.applications.dorefa_alexnet import AlexNet
from wrpn_tf.applications.preact_resnet import PreActResNet34

__all__ = [
    "AlexNet",
    "CIFARResNet",
    "PreActResNet34",
    "ResNet101",
    "ResNet14",
    "ResNet20",
    "ResNet32",
    "ResNet44",
    "ResNet56",
    "ResNet8",
]
