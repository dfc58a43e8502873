"""Solutions of the exercises to implement, by chapter: number -> function."""
