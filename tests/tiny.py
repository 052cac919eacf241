"""The default backbone on small pictures, a fifth of its work: for tests that do not ask how good it is."""

TINY = "tf_efficientnet_lite0.in1k@96"
