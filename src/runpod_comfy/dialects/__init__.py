"""What workers say and are told, as pure functions over bytes and values: no I/O."""
