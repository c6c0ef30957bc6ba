"""Curation of a site's prompts by written rules, with a record that others can be held to."""
