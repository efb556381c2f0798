"""Profiles: their model, rendering and store. The names of layouts and formats are here for the command line."""

LAYOUTS = ("local", "host", "tao7", "custom")
ENV_FORMATS = ("bash", "fish", "dotenv", "json")
