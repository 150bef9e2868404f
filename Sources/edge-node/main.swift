import ArgumentParser
import EdgeShell

EdgeNode.main()
