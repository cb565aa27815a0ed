"""From tokens to seconds, utilisation and money: model shapes, GPUs, prices, profiles and formulas."""
