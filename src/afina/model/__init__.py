"""Networks (torch): loading a base model, the attention seam, LoRA layers, the starter."""
