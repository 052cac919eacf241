"""What ships for those who extend Topgraft: conformance suites and drawn photos."""
