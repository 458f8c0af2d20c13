"""SmolLM2 on real collections: vocabulary, continued pre-training, and search with controls."""
