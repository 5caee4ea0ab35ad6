"""The telestream command."""
