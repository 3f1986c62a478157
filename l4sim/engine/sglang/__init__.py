"""SGLang's scheduling rules."""
