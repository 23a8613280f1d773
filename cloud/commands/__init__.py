"""Orders to devices and gateways: who asked, who agreed, and what became of them."""
