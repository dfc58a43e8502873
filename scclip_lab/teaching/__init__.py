"""For teachers: the cases that an assignment is graded by, its grader, and the cheat sheet."""
