package hostnet

// asChild names what a child process of a test shall do.
const asChild = "HEIMWEG_TEST_CHILD"

func child() int { return 0 }
