"""The only input and output with boards: transports, the agent, measuring, setting up."""
