"""From image files to the pixels that the vision tower reads."""
