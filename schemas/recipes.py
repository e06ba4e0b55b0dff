"""What a method does otherwise with some categories: `method.per_category`, by a category's name.

A key that is not given is as it is for all others. Only what is given is written, so that the fingerprint of a method
without recipes does not know that there are any.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer


class Recipe(BaseModel):
    """One category's own way."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    keep_coarse: bool | None = Field(default=None, description="leave its masks as they came, unrefined and unjudged")
    use_points: bool | None = Field(default=None, description="as in method")
    use_box: bool | None = Field(default=None, description="as in method")
    use_mask: bool | None = Field(default=None, description="as in method")
    elastic_threshold: float | None = Field(default=None, ge=0, lt=1, description="as in method")
    box_trials: int | None = Field(default=None, ge=0, le=100, description="as in method")
    split_regions: bool | None = Field(default=None, description="as in method")

    @model_serializer(mode="wrap")
    def _what_is_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}

    def of_method(self) -> dict[str, Any]:
        """The keys of the method that are other ones here."""
        return {key: value for key, value in self.model_dump().items() if key != "keep_coarse"}
