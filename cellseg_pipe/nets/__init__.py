"""Networks: their definition, their inference form and what surrounds them."""
