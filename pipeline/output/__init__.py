"""The third step: parts become a sealed result; and what happens to results later."""
