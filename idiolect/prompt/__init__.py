"""What a prompt is made of: a rendered conversation, its token ids, and the place of user tokens among them."""
