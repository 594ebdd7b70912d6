"""RandAugment, on the device and beside Pillow's."""
